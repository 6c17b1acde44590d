# What every target takes from the node that makes a machine. Every value is checked against a narrow pattern here,
# because it ends up in an environment or in a path.

variable "spawn_id" {
  description = "Name of the machine, which it carries as the label osiris.spawn."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,61}[a-z0-9]$", var.spawn_id))
    error_message = "spawn_id has 2 to 63 characters of a-z, 0-9 and -, and starts with a letter."
  }
}

variable "label" {
  description = "What people call the device."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$", var.label))
    error_message = "label has 1 to 63 letters, digits, spaces and . _ -, and starts with a letter or digit."
  }
}

variable "ticket" {
  description = "Ticket that admits this machine alone. Null for a destroy."
  type        = string
  sensitive   = true
  ephemeral   = true
  default     = null

  validation {
    condition     = var.ticket == null || can(regex("^osiris[a-z2-7]+$", var.ticket))
    error_message = "ticket is no ticket of Osiris."
  }
}

variable "osiris" {
  description = "The osiris binary on the machine that runs Terraform."
  type        = string

  validation {
    condition     = can(regex("^/[A-Za-z0-9._/-]{1,200}$", var.osiris))
    error_message = "osiris is an absolute path of letters, digits and . _ / -."
  }
}

# What this target takes besides: [provision.variables] of the node that makes machines.

variable "ami" {
  description = "Image of the system: a Linux with cloud-init and systemd."
  type        = string

  validation {
    condition     = can(regex("^ami-[0-9a-f]{8,17}$", var.ami))
    error_message = "ami is the id of an image."
  }
}

variable "instance_type" {
  description = "Type of the instance."
  type        = string
  default     = "t3.small"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", var.instance_type))
    error_message = "instance_type has 1 to 63 letters, digits and . _ -."
  }
}

variable "subnet_id" {
  description = "Subnet that gives the machine an address which the node that makes it reaches."
  type        = string

  validation {
    condition     = can(regex("^subnet-[0-9a-f]{8,17}$", var.subnet_id))
    error_message = "subnet_id is the id of a subnet."
  }
}

variable "security_group_id" {
  description = "Security group: in by TCP 22 from the node that makes the machine, out by all."
  type        = string

  validation {
    condition     = can(regex("^sg-[0-9a-f]{8,17}$", var.security_group_id))
    error_message = "security_group_id is the id of a security group."
  }
}

variable "ssh_public_key" {
  description = "This side's public key, which the machine takes: a line of an OpenSSH file."
  type        = string

  validation {
    condition     = can(regex("^(ssh-ed25519|ecdsa-sha2-nistp256|ssh-rsa) [A-Za-z0-9+/=]{40,800}( [A-Za-z0-9@._-]{1,100})?$", var.ssh_public_key))
    error_message = "ssh_public_key is a line of an OpenSSH public key file."
  }
}

variable "ssh_identity" {
  description = "File with the private key of it."
  type        = string

  validation {
    condition     = can(regex("^/[A-Za-z0-9._/-]{1,199}$", var.ssh_identity))
    error_message = "ssh_identity is an absolute path of letters, digits and . _ / -."
  }
}

variable "ssh_binary" {
  description = "Program that is copied to the machine. The osiris binary where this is null."
  type        = string
  default     = null

  validation {
    condition     = var.ssh_binary == null || can(regex("^/[A-Za-z0-9._/-]{1,199}$", var.ssh_binary))
    error_message = "ssh_binary is an absolute path of letters, digits and . _ / -."
  }
}
