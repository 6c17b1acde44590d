# What every target gives.

output "target" {
  description = "What the machine is."
  value       = "ssh"
}

output "spawn_id" {
  description = "The machine's name."
  value       = terraform_data.machine.output.spawn_id
}

output "place" {
  description = "Where its data is, in the target's own terms."
  value       = "${terraform_data.machine.output.ssh.OSIRIS_SSH_HOST}:${terraform_data.machine.output.place}/${terraform_data.machine.output.spawn_id}"
}
