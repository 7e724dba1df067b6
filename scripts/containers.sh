# shellcheck shell=bash
# Sourced after common.sh: the container images and the job in them.

# run_in_container ROOT ARGUMENT...: becomes the job in its image, as the user who calls, with nothing mounted but what
# it reads (not to be written to) and writes, each where it stands on this machine, so that messages name it.
run_in_container() {
  local root=$1 image=movielens_pipeline target=embedded input='' output='' arguments=()
  shift
  take_flags UPLOAD_DATASET -- "$@"
  set -- ${OTHERS[@]+"${OTHERS[@]}"}
  while (($#)); do
    case $1 in
    --input[_-]path=*) input=${1#*=} ;;
    --output[_-]path=*) output=${1#*=} ;;
    --input[_-]path) input=${2:-} && shift ;;
    --output[_-]path) output=${2:-} && shift ;;
    *) arguments+=("$1") ;;
    esac
    (($# == 0)) || shift
  done
  input=${input#file://} output=${output#file://}
  if [[ $(option_of engine sail ${arguments[@]+"${arguments[@]}"}) == spark ]]; then
    image=movielens_pipeline:spark target=spark
  fi
  build_image "$root" "$image" "$target"
  local options=(--rm --user "$(id -u):$(id -g)" --env KEEP_USER=yes)
  hand_over_environment SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE SPARK_DRIVER_MEMORY
  [[ -z $UPLOAD_DATASET ]] || upload_dataset docker run "${options[@]}" \
    --volume "$root/dataset:/opt/movielens/dataset:ro" --entrypoint /opt/movielens/environment/bin/python "$image" \
    /opt/movielens/scripts/upload_dataset.py
  if [[ $input != *://* ]]; then
    [[ -e $input ]] || die 3 "$input not found"
    input=$(absolute "$input")
    options+=(--mount "$(mount_of "$input"),readonly")
  fi
  if [[ $output != *://* ]]; then
    mkdir -p "$output" || die 1 "$output cannot be made"
    output=$(absolute "$output")
    options+=(--mount "$(mount_of "$output")")
  fi
  exec docker run "${options[@]}" "$image" --input_path "$input" --output_path "$output" \
    ${arguments[@]+"${arguments[@]}"}
}

# absolute PATH: prints the absolute path of a folder, or of a file, such as an archive.
absolute() {
  if [[ -d $1 ]]; then
    CDPATH='' cd "$1" && pwd
  else
    printf '%s/%s' "$(CDPATH='' cd "$(dirname "$1")" && pwd)" "$(basename "$1")"
  fi
}

# mount_of PATH: prints the mount of a path where it stands, its fields quoted, for a path may hold a comma.
mount_of() {
  local path=${1//\"/\"\"}
  printf 'type=bind,"source=%s","target=%s"' "$path" "$path"
}

# hand_over_environment NAME...: adds to options what the container needs to know, and the variables named; they are
# handed over by name, for the list of processes would show their values.
hand_over_environment() {
  local name
  for name in AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE AWS_REGION AWS_DEFAULT_REGION \
    AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 "$@"; do
    [[ -z ${!name:-} ]] || options+=(--env "$name")
  done
  [[ -n ${AWS_ACCESS_KEY_ID:-} || ! -d $HOME/.aws ]] || options+=(--volume "$HOME/.aws:/tmp/.aws:ro")
  [[ -z ${DOCKER_NETWORK:-} ]] || options+=(--network "$DOCKER_NETWORK")
}

# build_image ROOT IMAGE TARGET [BASE]: builds the image unless there is one of the very same files, and of the base image
# of that id where one is given.
build_image() {
  local root=$1 image=$2 target=$3 base=${4:-} made_of
  command -v docker >/dev/null || die 1 'docker is needed: https://docs.docker.com/engine/install'
  made_of=$(CDPATH='' cd "$root" && find Dockerfile .dockerignore VERSION movielens_pipeline.py movielens requirements \
    exec_EMR_compute_s3_storage.sh scripts dataset -type f ! -name '*.pyc' ! -name '*.in' -exec cksum {} + | sort && printf '%s' "$base")
  made_of=$(cksum <<<"$made_of")
  [[ $(made_of "$image") != "${made_of%% *}" ]] || return 0
  printf 'building the image %s (once; some minutes)\n' "$image" >&2
  docker build --quiet --target "$target" --label "movielens_pipeline.made_of=${made_of%% *}" --tag "$image" \
    "$root" >/dev/null ||
    die 1 "the image could not be built: docker build --target $target $root"
}

# made_of IMAGE: prints the checksum of what the image was made of; nothing where there is no such image.
made_of() {
  docker image inspect --format '{{index .Config.Labels "movielens_pipeline.made_of"}}' "$1" 2>/dev/null || true
}
