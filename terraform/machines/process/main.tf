# A machine that a fleet makes: a node as a process of the machine that runs Terraform. No shell is involved: the
# provisioners' interpreter is the program itself, and what varies goes by the environment (OSIRIS_*).

locals {
  machine = {
    spawn_id = var.spawn_id
    osiris   = var.osiris
    place    = var.place
  }
}

resource "terraform_data" "machine" {
  input            = local.machine
  triggers_replace = local.machine

  # It joins, starts, waits until the node serves, and undoes itself where that fails. Where the machine runs already
  # it does nothing. The ticket is ephemeral: Terraform keeps it in no state, plan or log.
  provisioner "local-exec" {
    interpreter = [self.input.osiris, "provision"]
    command     = "up"
    quiet       = true
    environment = {
      OSIRIS_TARGET   = "process"
      OSIRIS_SPAWN_ID = self.input.spawn_id
      OSIRIS_PLACE    = self.input.place
      OSIRIS_LABEL    = var.label
      OSIRIS_HTTP     = var.http
      OSIRIS_MESH     = var.mesh
      OSIRIS_TICKET   = var.ticket
    }
  }

  # By its label. One that fails stays in the state, and is tried again by the next destroy.
  provisioner "local-exec" {
    when        = destroy
    interpreter = [self.input.osiris, "provision"]
    command     = "down"
    quiet       = true
    environment = {
      OSIRIS_TARGET   = "process"
      OSIRIS_SPAWN_ID = self.input.spawn_id
      OSIRIS_PLACE    = self.input.place
    }
  }
}
