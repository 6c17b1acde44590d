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

  # Founds the fleet. A folder that belongs to one is left as it is, and says so; any other failure is
  # one of the next provisioner too, which needs a member's folder.
  provisioner "local-exec" {
    interpreter = [self.input.osiris]
    command     = "init"
    on_failure  = continue
    environment = {
      OSIRIS_DATA  = self.input.data_dir
      OSIRIS_NAME  = self.input.fleet_name
      OSIRIS_LABEL = self.input.label
    }
  }

  # Terraform skips the destroy provisioner of a creation that failed half-way, so its node may still run,
  # with other settings. Where none does, this does nothing.
  provisioner "local-exec" {
    interpreter = [self.input.osiris]
    command     = "down"
    environment = {
      OSIRIS_DATA = self.input.data_dir
    }
  }

  # `osiris up` stays in the foreground, and Terraform waits for whoever holds its output open, which rules
  # setsid and nohup out. start-stop-daemon detaches the node with its output in a file.
  provisioner "local-exec" {
    interpreter = [
      "start-stop-daemon", "--start", "--background", "--umask", "077",
      "--make-pidfile", "--pidfile", "${self.input.data_dir}/node.pid",
      "--output", "${self.input.data_dir}/node.log",
      "--exec", self.input.osiris, "--",
    ]
    command = "up"
    environment = merge({
      OSIRIS_DATA  = self.input.data_dir
      OSIRIS_HTTP  = self.input.http
      OSIRIS_MESH  = self.input.mesh
      OSIRIS_SPAWN = self.input.spawn_id
    }, self.input.token_file == null ? {} : { OSIRIS_TOKEN_FILE = self.input.token_file })
  }

  # Terraform has created a node when it answers, not when it was started.
  provisioner "local-exec" {
    interpreter = [
      "curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", "--noproxy", "*",
      "--retry", "30", "--retry-delay", "1", "--retry-connrefused", "--max-time", "5",
    ]
    command = "http://${self.input.http}/healthz"
  }

  # And it is the node of this folder that answers, not another that has the port.
  provisioner "local-exec" {
    interpreter = [self.input.osiris, "doctor", "--idle", "--seconds"]
    command     = "1"
    environment = {
      OSIRIS_DATA = self.input.data_dir
    }
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
