# What every target gives.

output "target" {
  description = "What the node was started on."
  value       = "process"
}

output "spawn_id" {
  description = "The node's name among all that were started."
  value       = terraform_data.node.output.spawn_id
}

output "http" {
  description = "Base URL of the HTTP interface."
  value       = "http://${terraform_data.node.output.http}"
}

output "place" {
  description = "Where the node's data is, in the target's own terms."
  value       = terraform_data.node.output.data_dir
}

output "id" {
  description = "Another one for each process that was started."
  value       = terraform_data.node.id
}
