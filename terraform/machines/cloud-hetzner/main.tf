# A machine that a fleet makes: a server of Hetzner Cloud. Its user data holds no secret. The ticket is given to it by SSH when it
# has booted, as to a host of one's own: what is in user data can be read by each process of the machine for as long as
# it lives, is in Terraform's state, and is kept by the cloud.

locals {
  user  = "osiris"
  place = "/home/osiris/machines"

  user_data = "#cloud-config\n${yamlencode({
    # No other key, no password, no root.
    users = [{
      name                = local.user
      shell               = "/bin/sh"
      lock_passwd         = true
      ssh_authorized_keys = [var.ssh_public_key]
    }]
    disable_root = true
    ssh_pwauth   = false
    # What a session started goes on when it ends.
    runcmd = [["loginctl", "enable-linger", local.user]]
  })}"

  machine = {
    spawn_id = var.spawn_id
    osiris   = var.osiris
    ssh = merge({
      OSIRIS_TARGET       = "ssh"
      OSIRIS_SPAWN_ID     = var.spawn_id
      OSIRIS_PLACE        = local.place
      OSIRIS_SSH_HOST     = hcloud_server.machine.ipv4_address
      OSIRIS_SSH_USER     = local.user
      OSIRIS_SSH_IDENTITY = var.ssh_identity
      # Nobody knows the host's key before it has booted: the first one is taken, and no other afterwards. Addresses are
      # used again, so each machine has a file of its own, beside its state.
      OSIRIS_SSH_KNOWN_HOSTS = "${abspath(path.root)}/known_hosts"
      OSIRIS_SSH_ACCEPT_NEW  = "true"
    }, var.ssh_binary == null ? {} : { OSIRIS_SSH_BINARY = var.ssh_binary })
  }
}

resource "hcloud_server" "machine" {
  name        = var.spawn_id
  server_type = var.server_type
  image       = var.image
  location    = var.location
  user_data   = local.user_data
  labels      = { "osiris.spawn" = var.spawn_id }
}

resource "terraform_data" "machine" {
  input            = local.machine
  triggers_replace = hcloud_server.machine.id

  provisioner "local-exec" {
    interpreter = [self.input.osiris, "provision"]
    command     = "up"
    quiet       = true
    environment = merge(self.input.ssh, {
      OSIRIS_SSH_WAIT = "5m"
      OSIRIS_TIMEOUT  = "10m"
      OSIRIS_LABEL    = var.label
      OSIRIS_MESH     = "0.0.0.0:7421"
      OSIRIS_TICKET   = var.ticket
    })
  }

  # The device leaves the fleet. Where that fails the server goes all the same: it costs money.
  provisioner "local-exec" {
    when        = destroy
    on_failure  = continue
    interpreter = [self.input.osiris, "provision"]
    command     = "down"
    quiet       = true
    environment = self.input.ssh
  }
}
