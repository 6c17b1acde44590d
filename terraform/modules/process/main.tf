# A node as a process of this machine. No shell is involved: a provisioner's interpreter is the program
# itself, and what varies goes by the environment (OSIRIS_*).

locals {
  node = {
    spawn_id   = var.spawn_id
    fleet_name = var.fleet_name
    label      = coalesce(var.label, var.spawn_id)
    http       = var.http
    mesh       = var.mesh
    token_file = var.token_file
    osiris     = var.osiris
    data_dir   = var.data_dir
  }
}

resource "terraform_data" "node" {
  input            = local.node
  triggers_replace = local.node

  # Founds the fleet, where the folder belongs to none yet: the recovery key is printed here, once. Ends a node that a
  # creation left which failed half-way, since Terraform skips the destroy provisioner of that; starts this one, and
  # waits until it serves.
  provisioner "local-exec" {
    interpreter = [self.input.osiris, "provision"]
    command     = "start"
    environment = merge({
      OSIRIS_TARGET   = "process"
      OSIRIS_SPAWN_ID = self.input.spawn_id
      OSIRIS_NAME     = self.input.fleet_name
      OSIRIS_LABEL    = self.input.label
      OSIRIS_DATA     = self.input.data_dir
      OSIRIS_HTTP     = self.input.http
      OSIRIS_MESH     = self.input.mesh
    }, self.input.token_file == null ? {} : { OSIRIS_TOKEN_FILE = self.input.token_file })
  }

  # Running calls finish first. The folder stays: whoever removes it removes a member's key and ledger.
  # One that fails stays in the state, and is tried again by the next destroy.
  provisioner "local-exec" {
    when        = destroy
    interpreter = [self.input.osiris]
    command     = "down"
    environment = {
      OSIRIS_DATA = self.input.data_dir
    }
  }
}
