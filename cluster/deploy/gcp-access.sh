#!/usr/bin/env bash
# Makes the two accounts of cluster/deploy/gcp.yaml: workers use one bucket, the head starts and ends machines too.
#   cluster/deploy/gcp-access.sh PROJECT BUCKET
set -euo pipefail
project=${1:?give the project}
bucket=${2:?give the name of the bucket}

for name in nla-cyclegan-worker nla-cyclegan-head; do
    gcloud iam service-accounts create "$name" --project "$project"
    gcloud storage buckets add-iam-policy-binding "gs://$bucket" --role roles/storage.objectAdmin \
        --member "serviceAccount:$name@$project.iam.gserviceaccount.com"
done
for role in roles/compute.admin roles/iam.serviceAccountUser; do
    gcloud projects add-iam-policy-binding "$project" --role "$role" --condition None \
        --member "serviceAccount:nla-cyclegan-head@$project.iam.gserviceaccount.com"
done
