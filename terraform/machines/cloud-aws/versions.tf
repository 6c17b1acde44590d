terraform {
  # Ephemeral variables came with 1.10 (OpenTofu: 1.11).
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.0"
    }
  }
}
