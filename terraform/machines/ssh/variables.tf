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

variable "place" {
  description = "Folder of the host in which each machine has a folder of its own, and the program one."
  type        = string

  validation {
    condition     = can(regex("^/[A-Za-z0-9._/-]{1,60}$", var.place))
    error_message = "place is an absolute path of at most 61 letters, digits and . _ / -."
  }
}

variable "http" {
  description = "Address and port of the HTTP interface; port 0 takes a free one."
  type        = string
  default     = "127.0.0.1:0"

  validation {
    condition     = can(regex("^127[.][0-9]{1,3}([.][0-9]{1,3}){2}:[0-9]{1,5}$", var.http))
    error_message = "http is an address of the loopback interface and a port, such as 127.0.0.1:0."
  }
}

variable "mesh" {
  description = "Address and port (UDP) for other members; port 0 takes a free one."
  type        = string
  default     = "0.0.0.0:0"

  validation {
    condition     = can(regex("^[0-9]{1,3}([.][0-9]{1,3}){3}:[0-9]{1,5}$", var.mesh))
    error_message = "mesh is an IPv4 address and a port, such as 0.0.0.0:0."
  }
}

variable "ssh_host" {
  description = "The host: its name or address."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9:][A-Za-z0-9.:_-]{0,252}$", var.ssh_host))
    error_message = "ssh_host has 1 to 253 letters, digits and . : _ -, and starts with no - . _"
  }
}

variable "ssh_port" {
  description = "Its port. As configured for ssh where this is null."
  type        = string
  default     = null

  validation {
    condition     = var.ssh_port == null || can(regex("^[1-9][0-9]{0,4}$", var.ssh_port))
    error_message = "ssh_port is a number from 1."
  }
}

variable "ssh_user" {
  description = "The user there. As configured for ssh where this is null."
  type        = string
  default     = null

  validation {
    condition     = var.ssh_user == null || can(regex("^[A-Za-z_][A-Za-z0-9._-]{0,31}$", var.ssh_user))
    error_message = "ssh_user has 1 to 32 letters, digits and . _ -, and starts with a letter or _."
  }
}

variable "ssh_identity" {
  description = "File with the key that is shown, and no other. As configured for ssh where this is null."
  type        = string
  default     = null

  validation {
    condition     = var.ssh_identity == null || can(regex("^/[A-Za-z0-9._/-]{1,199}$", var.ssh_identity))
    error_message = "ssh_identity is an absolute path of letters, digits and . _ / -."
  }
}

variable "ssh_known_hosts" {
  description = "File with the keys of hosts, and no other. As configured for ssh where this is null."
  type        = string
  default     = null

  validation {
    condition     = var.ssh_known_hosts == null || can(regex("^/[A-Za-z0-9._/-]{1,199}$", var.ssh_known_hosts))
    error_message = "ssh_known_hosts is an absolute path of letters, digits and . _ / -."
  }
}

variable "ssh_binary" {
  description = "Program that is copied to the host. The osiris binary where this is null."
  type        = string
  default     = null

  validation {
    condition     = var.ssh_binary == null || can(regex("^/[A-Za-z0-9._/-]{1,199}$", var.ssh_binary))
    error_message = "ssh_binary is an absolute path of letters, digits and . _ / -."
  }
}

variable "ssh_accept_new" {
  description = "Whether the key of a host that is not known yet is taken, and remembered: true or false."
  type        = string
  default     = "false"

  validation {
    condition     = contains(["true", "false"], var.ssh_accept_new)
    error_message = "ssh_accept_new is true or false."
  }
}

variable "ssh_wait" {
  description = "How long the host may take to be reached, such as 5m for one that boots. Not at all where this is null."
  type        = string
  default     = null

  validation {
    condition     = var.ssh_wait == null || can(regex("^[1-9][0-9]{0,3}(ms|s|m)$", var.ssh_wait))
    error_message = "ssh_wait is a time such as 30s or 5m."
  }
}
