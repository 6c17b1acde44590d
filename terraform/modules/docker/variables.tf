# What every target of Osiris takes, whatever it starts a node on. Every value is checked against a narrow
# pattern here, because it ends up in a command line or in an environment.

variable "spawn_id" {
  description = "Name of this fleet among all that were ever started. Its nodes are NAME-0, NAME-1 and so on."
  type        = string
  default     = "first"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,48}[a-z0-9]$", var.spawn_id))
    error_message = "spawn_id has 2 to 50 characters of a-z, 0-9 and -, and starts with a letter."
  }
}

variable "fleet_name" {
  description = "What people call the fleet. Only used where the first node founds it."
  type        = string
  default     = "home"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$", var.fleet_name))
    error_message = "fleet_name has 1 to 63 letters, digits, spaces and . _ -, and starts with a letter or digit."
  }
}

variable "label" {
  description = "What people call the devices, each with its number. The spawn_id where this is null."
  type        = string
  default     = null

  validation {
    condition     = var.label == null || can(regex("^[A-Za-z0-9][A-Za-z0-9 ._-]{0,58}$", var.label))
    error_message = "label has 1 to 59 letters, digits, spaces and . _ -, and starts with a letter or digit."
  }
}

variable "http" {
  description = "Address and port of this machine for the HTTP interface of the first node; the others have the ports after it. Only where there is a token_file."
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
  description = "Address and port (UDP) in the network of the containers, for other members."
  type        = string
  default     = "0.0.0.0:7421"

  validation {
    condition     = can(regex("^[0-9]{1,3}([.][0-9]{1,3}){3}:[0-9]{1,5}$", var.mesh))
    error_message = "mesh is an IPv4 address and a port, such as 0.0.0.0:7421."
  }
}

variable "token_file" {
  description = "File of this machine with the token that HTTP callers present. The file, never the token."
  type        = string
  default     = null

  validation {
    condition     = var.token_file == null || can(regex("^/[A-Za-z0-9._/-]{1,200}$", var.token_file))
    error_message = "token_file is an absolute path of letters, digits and . _ / -."
  }
}

# What this target takes besides.

variable "osiris" {
  description = "The osiris binary of this machine, which speaks to Docker."
  type        = string

  validation {
    condition     = can(regex("^/[A-Za-z0-9._/-]{1,200}$", var.osiris))
    error_message = "osiris is an absolute path of letters, digits and . _ / -."
  }
}

variable "nodes" {
  description = "How many nodes the fleet has."
  type        = number
  default     = 3

  validation {
    condition     = var.nodes >= 1 && var.nodes <= 32 && floor(var.nodes) == var.nodes
    error_message = "nodes is a number from 1 to 32."
  }
}

variable "image" {
  description = "Image whose entry is the osiris binary, with a folder /data of user 65532."
  type        = string
  default     = "osiris:latest"

  validation {
    condition     = can(regex("^[A-Za-z0-9._:@][A-Za-z0-9._/:@-]{0,254}$", var.image))
    error_message = "image has letters, digits and . _ / : @ -."
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

variable "subnet" {
  description = "Addresses of the network that the containers share, which is made for them. Each keeps its own."
  type        = string
  default     = "10.203.0.0/24"

  validation {
    condition     = can(cidrhost(var.subnet, 41)) && can(regex("^[0-9]{1,3}([.][0-9]{1,3}){3}/[0-9]{1,2}$", var.subnet))
    error_message = "subnet is an IPv4 network with room for 41 hosts, such as 10.203.0.0/24."
  }
}
