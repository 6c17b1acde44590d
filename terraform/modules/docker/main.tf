# A first fleet, as containers of the machine that runs Terraform. No shell is involved: a provisioner's interpreter is
# the program itself, and what varies goes by the environment (OSIRIS_*).

locals {
  label  = coalesce(var.label, var.spawn_id)
  parts  = split(":", var.http)
  docker = { OSIRIS_DOCKER = var.docker, OSIRIS_NETWORK = var.spawn_id, OSIRIS_SUBNET = var.subnet }
  nodes = [for n in range(var.nodes) : merge(
    local.docker,
    {
      OSIRIS_SPAWN_ID  = "${var.spawn_id}-${n}"
      OSIRIS_NAME      = var.fleet_name
      OSIRIS_LABEL     = "${local.label}-${n}"
      OSIRIS_IMAGE     = var.image
      OSIRIS_NODE_MESH = var.mesh
      # The first addresses of a network are Docker's own.
      OSIRIS_ADDRESS = cidrhost(var.subnet, 10 + n)
    },
    var.token_file == null ? {} : {
      OSIRIS_TOKEN_FILE = var.token_file
      OSIRIS_PUBLISH    = "${local.parts[0]}:${tonumber(local.parts[1]) + n}"
    },
  )]
}

# It founds the fleet, where its volume holds none yet.
resource "terraform_data" "first" {
  input            = { osiris = var.osiris, node = local.nodes[0], docker = local.docker }
  triggers_replace = { osiris = var.osiris, node = local.nodes[0], docker = local.docker }

  # Founds, starts, and waits until it serves. One that runs already is left as it is. The recovery key is printed here,
  # once.
  provisioner "local-exec" {
    interpreter = [self.input.osiris, "provision"]
    command     = "start"
    environment = self.input.node
  }

  # Running calls finish first. The volume stays: whoever removes it removes a member's key and ledger.
  # One that fails stays in the state, and is tried again by the next destroy.
  provisioner "local-exec" {
    when        = destroy
    interpreter = [self.input.osiris, "provision"]
    command     = "stop"
    environment = merge(self.input.docker, { OSIRIS_SPAWN_ID = self.input.node.OSIRIS_SPAWN_ID })
  }
}

# They are invited by the first, each by a ticket of its own that Terraform never sees.
resource "terraform_data" "other" {
  count = var.nodes - 1

  input            = { osiris = var.osiris, node = local.nodes[count.index + 1], docker = local.docker }
  triggers_replace = { osiris = var.osiris, node = local.nodes[count.index + 1], docker = local.docker }
  depends_on       = [terraform_data.first]

  provisioner "local-exec" {
    interpreter = [self.input.osiris, "provision"]
    command     = "start"
    environment = merge(self.input.node, { OSIRIS_FOUNDER = local.nodes[0].OSIRIS_SPAWN_ID })
  }

  provisioner "local-exec" {
    when        = destroy
    interpreter = [self.input.osiris, "provision"]
    command     = "stop"
    environment = merge(self.input.docker, { OSIRIS_SPAWN_ID = self.input.node.OSIRIS_SPAWN_ID })
  }
}
