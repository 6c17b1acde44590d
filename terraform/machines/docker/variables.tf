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

variable "image" {
  description = "Image whose entry is the osiris binary, with a folder /data of user 65532."
  type        = string
  default     = "osiris:latest"

  validation {
    condition     = can(regex("^[A-Za-z0-9._:@][A-Za-z0-9._/:@-]{0,254}$", var.image))
    error_message = "image has letters, digits and . _ / : @ -."
  }
}

variable "network" {
  description = "Network of the container; the node that makes the machine has to be reached from it."
  type        = string
  default     = "bridge"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", var.network))
    error_message = "network has letters, digits and . _ -."
  }
}

variable "docker" {
  description = "Socket of Docker's API."
  type        = string
  default     = "/var/run/docker.sock"

  validation {
    condition     = can(regex("^/[A-Za-z0-9._/-]{1,100}$", var.docker))
    error_message = "docker is an absolute path of letters, digits and . _ / -."
  }
}
