#!/usr/bin/env bash
# Makes the two roles of cluster/deploy/aws.yaml: workers use one bucket, the head starts and ends machines too.
#   cluster/deploy/aws-access.sh BUCKET
set -euo pipefail
bucket=${1:?give the name of the bucket}
account=$(aws sts get-caller-identity --query Account --output text)
worker=nla-cyclegan-worker
head=nla-cyclegan-head

trust='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"},
  "Action": "sts:AssumeRole"}]}'
use_bucket='{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetBucketLocation"], "Resource": "arn:aws:s3:::'$bucket'"},
  {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
   "Resource": "arn:aws:s3:::'$bucket'/*"}]}'
start_machines='{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Action": ["ec2:*", "iam:GetInstanceProfile", "ssm:GetParameters"], "Resource": "*"},
  {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "arn:aws:iam::'$account':role/'$worker'"}]}'

for role in "$worker" "$head"; do
    aws iam create-role --role-name "$role" --assume-role-policy-document "$trust" > /dev/null
    aws iam put-role-policy --role-name "$role" --policy-name bucket --policy-document "$use_bucket"
    aws iam create-instance-profile --instance-profile-name "$role" > /dev/null
    aws iam add-role-to-instance-profile --instance-profile-name "$role" --role-name "$role"
done
aws iam put-role-policy --role-name "$head" --policy-name machines --policy-document "$start_machines"
