# What every target gives.

output "target" {
  description = "What the nodes were started on."
  value       = "docker"
}

output "spawn_id" {
  description = "The fleet's name among all that were started."
  value       = var.spawn_id
}

output "http" {
  description = "Base URL of the HTTP interface of the first node; null without a token_file."
  value       = try("http://${terraform_data.first.output.node.OSIRIS_PUBLISH}", null)
}

output "place" {
  description = "Where the first node's data is, in the target's own terms."
  value       = "volume ${terraform_data.first.output.node.OSIRIS_SPAWN_ID}"
}

output "id" {
  description = "Another one for each first node that was started."
  value       = terraform_data.first.id
}

output "nodes" {
  description = "The containers, each with a volume of the same name."
  value = concat(
    [terraform_data.first.output.node.OSIRIS_SPAWN_ID],
    terraform_data.other[*].output.node.OSIRIS_SPAWN_ID,
  )
}
