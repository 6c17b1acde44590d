# What every target gives.

output "target" {
  description = "What the machine is."
  value       = "cloud-hetzner"
}

output "spawn_id" {
  description = "The machine's name."
  value       = terraform_data.machine.output.spawn_id
}

output "place" {
  description = "Where its data is, in the target's own terms."
  value       = "${hcloud_server.machine.id}:${local.place}/${terraform_data.machine.output.spawn_id}"
}
