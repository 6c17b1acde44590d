terraform {
  # Ephemeral variables came with 1.10 (OpenTofu: 1.11).
  required_version = ">= 1.10"

  required_providers {
    hcloud = {
      source  = "hetznercloud/hcloud"
      version = "~> 1.45"
    }
  }
}
