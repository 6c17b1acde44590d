terraform {
  # terraform_data is built in, and so needs no registry. OpenTofu has it as well.
  required_version = ">= 1.6"
}
