# A machine that a fleet makes: a node as a process of a host that is reached by SSH. No shell of this machine is
# involved: the provisioners' interpreter is the program itself, and what varies goes by the environment (OSIRIS_*).

locals {
  machine = {
    spawn_id = var.spawn_id
    osiris   = var.osiris
    place    = var.place
    # What is not given is as the user configured it for ssh.
    ssh = merge(
      { OSIRIS_SSH_HOST = var.ssh_host, OSIRIS_SSH_ACCEPT_NEW = var.ssh_accept_new },
      var.ssh_wait == null ? {} : { OSIRIS_SSH_WAIT = var.ssh_wait },
      var.ssh_port == null ? {} : { OSIRIS_SSH_PORT = var.ssh_port },
      var.ssh_user == null ? {} : { OSIRIS_SSH_USER = var.ssh_user },
      var.ssh_identity == null ? {} : { OSIRIS_SSH_IDENTITY = var.ssh_identity },
      var.ssh_known_hosts == null ? {} : { OSIRIS_SSH_KNOWN_HOSTS = var.ssh_known_hosts },
      var.ssh_binary == null ? {} : { OSIRIS_SSH_BINARY = var.ssh_binary },
    )
  }
}

resource "terraform_data" "machine" {
  input            = local.machine
  triggers_replace = local.machine

  # It copies the program, joins, starts, waits until the node serves, and undoes itself where that fails. Where the
  # machine runs already it does nothing. The ticket is ephemeral: Terraform keeps it in no state, plan or log.
  provisioner "local-exec" {
    interpreter = [self.input.osiris, "provision"]
    command     = "up"
    quiet       = true
    environment = merge(self.input.ssh, {
      OSIRIS_TARGET   = "ssh"
      OSIRIS_SPAWN_ID = self.input.spawn_id
      OSIRIS_PLACE    = self.input.place
      OSIRIS_LABEL    = var.label
      OSIRIS_HTTP     = var.http
      OSIRIS_MESH     = var.mesh
      OSIRIS_TICKET   = var.ticket
    })
  }

  # By its label. One that fails stays in the state, and is tried again by the next destroy.
  provisioner "local-exec" {
    when        = destroy
    interpreter = [self.input.osiris, "provision"]
    command     = "down"
    quiet       = true
    environment = merge(self.input.ssh, {
      OSIRIS_TARGET   = "ssh"
      OSIRIS_SPAWN_ID = self.input.spawn_id
      OSIRIS_PLACE    = self.input.place
    })
  }
}
