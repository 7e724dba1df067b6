# shellcheck shell=bash
# Sourced after aws.sh: the stack of a schedule. Parameters of it that are not given stay as they are.

# deploy_fargate_schedule ROOT PARAMETER=VALUE...: has the task of create_docker_resources.sh run by the schedule.
deploy_fargate_schedule() {
  local root=$1 task network
  shift
  task=$(stack_outputs "$STACK_NAME-fargate")
  network=$(stack_outputs "$STACK_NAME-network")
  [[ -n $(value_of "$task" TaskRole) && -n $network ]] ||
    die 1 'the task is not there, or is of an earlier version; create_docker_resources.sh makes it'
  deploy_stack "$STACK_NAME-schedule" "$root/infrastructure/schedule.yaml" "Name=$STACK_NAME" Way=fargate \
    "Subnets=$(value_of "$network" Subnets)" "SecurityGroup=$(value_of "$network" TaskSecurityGroup)" \
    "TaskRole=$(value_of "$task" TaskRole)" "ExecutionRole=$(value_of "$task" ExecutionRole)" \
    "LogGroup=$(value_of "$task" LogGroup)" \
    JobRole= Script= Package= ReleaseLabel= VCpu= Memory= Disk= TimeLimit= "$@"
}

# deploy_serverless_schedule ROOT PARAMETER=VALUE...: has the job run on EMR Serverless by the schedule. Goes by
# EMR_RELEASE_LABEL, EMR_MAX_VCPU and TIME_LIMIT, in seconds.
deploy_serverless_schedule() {
  local root=$1 roles role
  shift
  roles=$(stack_outputs "$STACK_NAME-emr")
  role=$(value_of "$roles" ServerlessJobRole)
  [[ -n $role ]] || die 1 'the role of serverless jobs is not there; create_role_emr_serverless.sh makes it'
  require_bucket_there
  upload_job "$root"
  deploy_stack "$STACK_NAME-schedule" "$root/infrastructure/schedule.yaml" "Name=$STACK_NAME" Way=serverless \
    "JobRole=$role" "Script=$JOB" "Package=$PACKAGE" "ReleaseLabel=$EMR_RELEASE_LABEL" "VCpu=$EMR_MAX_VCPU vCPU" \
    "Memory=$((EMR_MAX_VCPU * 4)) GB" "Disk=$((EMR_MAX_VCPU * 10)) GB" "TimeLimit=$(((TIME_LIMIT + 59) / 60))" \
    Subnets= SecurityGroup= TaskRole= ExecutionRole= LogGroup= "$@"
}
