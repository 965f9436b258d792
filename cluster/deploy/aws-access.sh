#!/usr/bin/env bash
# Creates the two roles of cluster/deploy/aws.yaml: workers may use one bucket; the head may also start and terminate machines of
# its own cluster, and no others. May be run again.
#   cluster/deploy/aws-access.sh BUCKET
set -euo pipefail
bucket=${1:?give the name of the bucket}
file=$(dirname "${BASH_SOURCE[0]}")/aws.yaml
cluster=$(sed -n 's/^cluster_name: //p' "$file")
region=$(sed -n 's/^  region: //p' "$file")
account=$(aws sts get-caller-identity --query Account --output text)
worker=nla-cyclegan-worker
head=nla-cyclegan-head
ec2=arn:aws:ec2:$region

trust='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"},
  "Action": "sts:AssumeRole"}]}'
use_bucket='{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetBucketLocation"], "Resource": "arn:aws:s3:::'$bucket'"},
  {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
   "Resource": "arn:aws:s3:::'$bucket'/*"}]}'
# The calls of the autoscaler. Ray names each machine after its cluster when it starts it; without that name it may not be started,
# and only machines of that name may be renamed or terminated.
start_machines='{"Version": "2012-10-17", "Statement": [
  {"Sid": "See", "Effect": "Allow", "Action": ["ec2:DescribeInstances", "ec2:DescribeInstanceTypes"],
   "Resource": "*", "Condition": {"StringEquals": {"aws:RequestedRegion": "'$region'"}}},
  {"Sid": "StartWith", "Effect": "Allow", "Action": "ec2:RunInstances",
   "Resource": ["'$ec2'::image/*", "'$ec2:$account':subnet/*", "'$ec2:$account':security-group/*", "'$ec2:$account':key-pair/*",
    "'$ec2:$account':network-interface/*", "'$ec2:$account':volume/*", "'$ec2:$account':spot-instances-request/*"]},
  {"Sid": "Start", "Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "'$ec2:$account':instance/*",
   "Condition": {"StringEquals": {"aws:RequestTag/ray-cluster-name": "'$cluster'"}}},
  {"Sid": "Name", "Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "'$ec2:$account':instance/*",
   "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances", "aws:RequestTag/ray-cluster-name": "'$cluster'"}}},
  {"Sid": "ItsOwn", "Effect": "Allow", "Action": ["ec2:CreateTags", "ec2:TerminateInstances"],
   "Resource": "'$ec2:$account':instance/*", "Condition": {"StringEquals": {"aws:ResourceTag/ray-cluster-name": "'$cluster'"}}},
  {"Sid": "NewestImage", "Effect": "Allow", "Action": "ssm:GetParameters",
   "Resource": "arn:aws:ssm:'$region'::parameter/aws/service/deeplearning/*"},
  {"Sid": "WorkersRole", "Effect": "Allow", "Action": "iam:PassRole", "Resource": "arn:aws:iam::'$account':role/'$worker'",
   "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}}]}'

for role in "$worker" "$head"; do
    if ! aws iam get-role --role-name "$role" > /dev/null 2>&1; then
        aws iam create-role --role-name "$role" --assume-role-policy-document "$trust" > /dev/null
    fi
    aws iam put-role-policy --role-name "$role" --policy-name bucket --policy-document "$use_bucket"
    has=$(aws iam get-instance-profile --instance-profile-name "$role" --query 'InstanceProfile.Roles[].RoleName' --output text 2> /dev/null) ||
        aws iam create-instance-profile --instance-profile-name "$role" > /dev/null
    # Missing also if an earlier call was interrupted here.
    [[ $has == *"$role"* ]] || aws iam add-role-to-instance-profile --instance-profile-name "$role" --role-name "$role"
done
aws iam put-role-policy --role-name "$head" --policy-name machines --policy-document "$start_machines"
# For accounts that never had a spot machine; the head itself may not create this role.
if ! aws iam get-role --role-name AWSServiceRoleForEC2Spot > /dev/null 2>&1; then
    aws iam create-service-linked-role --aws-service-name spot.amazonaws.com > /dev/null
fi

# Parts of interrupted uploads do not show in listings, and cost money until somebody deletes them.
abort='{"Rules": [{"ID": "abort-unfinished-uploads", "Status": "Enabled", "Filter": {"Prefix": ""},
  "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}]}'
if rules=$(aws s3api get-bucket-lifecycle-configuration --bucket "$bucket" 2>&1); then
    case $rules in
        *AbortIncompleteMultipartUpload*) ;;
        *) echo "$bucket has lifecycle rules, which stay as they are; add this one to them: $abort" ;;
    esac
elif [[ $rules == *NoSuchLifecycleConfiguration* ]]; then
    aws s3api put-bucket-lifecycle-configuration --bucket "$bucket" --lifecycle-configuration "$abort"
    echo "$bucket: unfinished uploads are deleted after 7 days (a lifecycle rule, the bucket had none)"
else
    echo "lifecycle rules of $bucket cannot be read, so none was added: $rules" >&2
fi
