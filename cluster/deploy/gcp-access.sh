#!/usr/bin/env bash
# Creates the two accounts of cluster/deploy/gcp.yaml: workers may use one bucket; the head may also start and terminate machines, but
# only under the workers' account. May be run again.
#   cluster/deploy/gcp-access.sh PROJECT BUCKET
set -euo pipefail
project=${1:?give the project}
bucket=${2:?give the name of the bucket}
worker=nla-cyclegan-worker@$project.iam.gserviceaccount.com
head=nla-cyclegan-head@$project.iam.gserviceaccount.com

for account in "$worker" "$head"; do
    if ! gcloud iam service-accounts describe "$account" --project "$project" > /dev/null 2>&1; then
        gcloud iam service-accounts create "${account%%@*}" --project "$project"
    fi
    gcloud storage buckets add-iam-policy-binding "gs://$bucket" --role roles/storage.objectAdmin \
        --member "serviceAccount:$account"
done
gcloud projects add-iam-policy-binding "$project" --role roles/compute.instanceAdmin.v1 --condition None \
    --member "serviceAccount:$head"
gcloud iam service-accounts add-iam-policy-binding "$worker" --project "$project" \
    --role roles/iam.serviceAccountUser --member "serviceAccount:$head"

# Parts of interrupted uploads do not show in listings, and cost money until somebody deletes them.
abort='{"rule": [{"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}}]}'
rules=$(gcloud storage buckets describe "gs://$bucket" --format "value(lifecycle_config)")
case $rules in
    "")
        gcloud storage buckets update "gs://$bucket" --lifecycle-file <(echo "$abort")
        echo "$bucket: unfinished uploads are deleted after 7 days (a lifecycle rule, the bucket had none)"
        ;;
    *AbortIncompleteMultipartUpload*) ;;
    *) echo "$bucket has lifecycle rules, which stay as they are; add this one to them: $abort" ;;
esac
