terraform {
  # terraform_data is built in, and so needs no registry. Ephemeral variables came with 1.10 (OpenTofu: 1.11).
  required_version = ">= 1.10"
}
