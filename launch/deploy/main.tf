# A schedule that reindexes: Cloud Scheduler starts the workflow beside this
# file. `influence schedule` writes the variables to terraform.tfvars.json.

terraform {
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0"
    }
  }
}

variable "project" {
  type = string
}

variable "region" {
  type = string
}

variable "name" {
  type        = string
  description = "of the schedule, up to 23 of a-z, 0-9 and -"
}

variable "cron" {
  type        = string
  description = "when, as in a crontab"
}

variable "time_zone" {
  type    = string
  default = "UTC"
}

variable "job" {
  type        = string
  description = "the Cloud Batch job as JSON"
}

variable "topic" {
  type        = string
  description = "Pub/Sub topic, projects/P/topics/T, or empty"
  default     = ""
}

variable "poll_seconds" {
  type    = number
  default = 60
}

provider "google" {
  project = var.project
  region  = var.region
}

resource "google_service_account" "runner" {
  account_id   = "${var.name}-runner"
  display_name = "Launches and runs ${var.name}"
}

resource "google_project_iam_member" "runner" {
  for_each = toset([
    "roles/artifactregistry.reader",
    "roles/batch.jobsEditor",
    "roles/batch.agentReporter",
    "roles/iam.serviceAccountUser",
    "roles/logging.logWriter",
    "roles/pubsub.publisher",
    "roles/storage.objectUser",
    "roles/workflows.invoker",
  ])
  project = var.project
  role    = each.value
  member  = "serviceAccount:${google_service_account.runner.email}"
}

resource "google_workflows_workflow" "reindex" {
  name            = var.name
  region          = var.region
  service_account = google_service_account.runner.id
  source_contents = file("${path.module}/workflow.yaml")
}

resource "google_cloud_scheduler_job" "reindex" {
  name      = var.name
  region    = var.region
  schedule  = var.cron
  time_zone = var.time_zone

  http_target {
    http_method = "POST"
    headers     = { "Content-Type" = "application/json" }
    uri         = "https://workflowexecutions.googleapis.com/v1/${google_workflows_workflow.reindex.id}/executions"
    body = base64encode(jsonencode({
      argument = jsonencode({
        project      = var.project
        region       = var.region
        name         = var.name
        job          = jsondecode(var.job)
        topic        = var.topic
        poll_seconds = var.poll_seconds
      })
    }))
    oauth_token {
      service_account_email = google_service_account.runner.email
    }
  }
}
