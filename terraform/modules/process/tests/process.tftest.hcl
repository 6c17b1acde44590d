# Starts and stops real nodes. It needs the binary and a folder that does not exist yet:
#
#   TF_VAR_osiris=/path/to/osiris TF_VAR_data_dir=/path/to/a/new/folder terraform test

variables {
  http = "127.83.73.1:17420"
  mesh = "127.0.0.1:0"
}

run "founds_a_fleet_and_answers" {
  assert {
    condition     = output.http == "http://127.83.73.1:17420"
    error_message = "The module gives another address than the node has."
  }
  assert {
    condition     = output.target == "process" && output.spawn_id == "first"
    error_message = "The module does not say what it started."
  }
  assert {
    condition     = fileexists("${output.place}/journal")
    error_message = "The folder holds no ledger."
  }
}

run "changes_nothing_when_nothing_changed" {
  assert {
    condition     = output.id == run.founds_a_fleet_and_answers.id
    error_message = "The node was replaced for no reason."
  }
}

# The fleet stays, and only the node is another process.
run "moves_to_another_address" {
  variables {
    http = "127.83.73.1:17421"
  }
  assert {
    condition     = output.http == "http://127.83.73.1:17421"
    error_message = "The node did not move."
  }
}

run "refuses_what_a_shell_would_run" {
  command = plan
  variables {
    osiris     = "/bin/sh -c true"
    data_dir   = "/tmp/$(id)"
    spawn_id   = "a; id"
    fleet_name = "home\nOSIRIS_HTTP=0.0.0.0:1"
    label      = "`id`"
    mesh       = "--help"
    token_file = "@token"
  }
  expect_failures = [
    var.osiris, var.data_dir, var.spawn_id, var.fleet_name, var.label, var.mesh, var.token_file,
  ]
}

# Apart, because the check of http looks at token_file, which above is wrong itself.
run "refuses_a_url_for_an_address" {
  command = plan
  variables {
    http = "127.0.0.1:7420/ -o /etc/passwd"
  }
  expect_failures = [var.http]
}

run "opens_nothing_without_a_token" {
  command = plan
  variables {
    http = "0.0.0.0:7420"
  }
  expect_failures = [var.http]
}
