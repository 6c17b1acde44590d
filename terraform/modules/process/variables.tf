# What every target of Osiris takes, whatever it starts a node on. Every value is checked against a narrow
# pattern here, because it ends up in a command line or in an environment.

variable "spawn_id" {
  description = "Name of this node among all that were ever started: it marks what belongs to it."
  type        = string
  default     = "first"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,61}[a-z0-9]$", var.spawn_id))
    error_message = "spawn_id has 2 to 63 characters of a-z, 0-9 and -, and starts with a letter."
  }
}

variable "fleet_name" {
  description = "What people call the fleet. Only used where this node founds it."
  type        = string
  default     = "home"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$", var.fleet_name))
    error_message = "fleet_name has 1 to 63 letters, digits, spaces and . _ -, and starts with a letter or digit."
  }
}

variable "label" {
  description = "What people call the device. The spawn_id where this is null."
  type        = string
  default     = null

  validation {
    condition     = var.label == null || can(regex("^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$", var.label))
    error_message = "label has 1 to 63 letters, digits, spaces and . _ -, and starts with a letter or digit."
  }
}

variable "http" {
  description = "Address and port of the HTTP interface. One that other machines reach needs a token_file."
  type        = string
  default     = "127.0.0.1:7420"

  validation {
    condition     = can(regex("^[0-9]{1,3}([.][0-9]{1,3}){3}:[1-9][0-9]{0,4}$", var.http))
    error_message = "http is an IPv4 address and a port above 0, such as 127.0.0.1:7420."
  }

  validation {
    condition     = startswith(var.http, "127.") || var.token_file != null
    error_message = "An HTTP interface that other machines reach needs a token_file."
  }
}

variable "mesh" {
  description = "Address and port (UDP) for other members; port 0 takes a free one."
  type        = string
  default     = "0.0.0.0:0"

  validation {
    condition     = can(regex("^[0-9]{1,3}([.][0-9]{1,3}){3}:[0-9]{1,5}$", var.mesh))
    error_message = "mesh is an IPv4 address and a port, such as 0.0.0.0:7421."
  }
}

variable "token_file" {
  description = "File on the target with the token that HTTP callers present. The file, never the token."
  type        = string
  default     = null

  validation {
    condition     = var.token_file == null || can(regex("^/[A-Za-z0-9._/-]{1,200}$", var.token_file))
    error_message = "token_file is an absolute path of letters, digits and . _ / -."
  }
}

# What this target takes besides.

variable "osiris" {
  description = "The osiris binary."
  type        = string

  validation {
    condition     = can(regex("^/[A-Za-z0-9._/-]{1,200}$", var.osiris))
    error_message = "osiris is an absolute path of letters, digits and . _ / -."
  }
}

variable "data_dir" {
  description = "Folder of the device: its key, its ledger, its components. It outlives the node."
  type        = string

  # A Unix socket in it must have a path that every system takes.
  validation {
    condition     = can(regex("^/[A-Za-z0-9._/-]{1,80}$", var.data_dir))
    error_message = "data_dir is an absolute path of at most 81 letters, digits and . _ / -."
  }
}
