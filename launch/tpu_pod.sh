#!/usr/bin/env bash
# One command on every host of a Cloud TPU slice, from its creation to its end.
#
#   launch/tpu_pod.sh COMMAND --name=NAME --zone=ZONE [options] [-- python launch/train.py --config=...]
#
# commands
#   run      create the slice or attach to it, install, start, and watch: after a preemption all of it
#            anew, after a failure another start. Ends with the exit status of the run
#   create   create the slice, or wait until the one that is there is ready
#   install  bring the code, and what it needs, to every host
#   start    start the command on every host; it goes on when this machine leaves
#   status   of each host: idle, running, lost (it restarted), stopped (as you asked), or the exit status
#   logs     follow what the command prints
#   stop     send SIGTERM: the run saves itself and exits with 75
#   delete   delete the slice
# options
#   --type=TYPE        accelerator type to create, e.g. v5litepod-16
#   --runtime=VERSION  its software, e.g. v2-alpha-tpuv5-lite
#   --spot             cheaper, and may be taken away
#   --queued           a queued resource: wait in line where there is no room, instead of failing
#   --setup=COMMAND    run on every host before installing, e.g. to mount the shared work directory
#   --revision=REV     install this git revision; otherwise the working tree as it is
#   --worker=0         whose log to follow: a number, or all
#   --retries=3        how many failures `run` starts again after; preemptions do not count
#   --interval=60      seconds between two looks of `run`
#   --dry_run          print the gcloud commands, and run none
set -euo pipefail

ROOT=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
EXIT_FAILURE=1 EXIT_USER_ERROR=2 EXIT_STOPPED=75   # as in condenser_jax/errors.py
COMMANDS="run create install start status logs stop delete"
NAME='' ZONE='' TYPE='' RUNTIME='' SETUP=':' REVISION='' WORKER=0 RETRIES=3 INTERVAL=60
SPOT='' QUEUED='' DRY_RUN='' TRAIN=()

say() { printf 'tpu_pod: %s\n' "$*" >&2; }
mistake() { printf 'error: %s\n' "$*" >&2; exit "$EXIT_USER_ERROR"; }
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

read_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --name=*) NAME=${1#*=} ;;          --zone=*) ZONE=${1#*=} ;;
      --type=*) TYPE=${1#*=} ;;          --runtime=*) RUNTIME=${1#*=} ;;
      --setup=*) SETUP=${1#*=} ;;        --revision=*) REVISION=${1#*=} ;;
      --worker=*) WORKER=${1#*=} ;;      --retries=*) RETRIES=${1#*=} ;;
      --interval=*) INTERVAL=${1#*=} ;;  --spot) SPOT=yes ;;
      --queued) QUEUED=yes ;;            --dry_run) DRY_RUN=yes ;;
      --) shift; TRAIN=("$@"); return ;;
      *) mistake "unknown option '$1'; the command to train with stands after --; see --help" ;;
    esac
    shift
  done
}

check_options() {
  case " $COMMANDS " in *" $1 "*) ;; *) mistake "unknown command '$1'; known: $COMMANDS" ;; esac
  [ -n "$NAME" ] || mistake "--name is missing: the name of the TPU slice, e.g. --name=my-pod"
  [ -n "$ZONE" ] || mistake "--zone is missing: where the TPU slice is, e.g. --zone=us-west4-a"
  [[ $RETRIES =~ ^[0-9]+$ ]] || mistake "--retries=$RETRIES; expected a whole number, e.g. 3"
  case $1 in run | start)
    [ ${#TRAIN[@]} -gt 0 ] || mistake "nothing to start; end with: -- python launch/train.py --config=..."
  esac
  [ -n "$DRY_RUN" ] || command -v gcloud > /dev/null ||
    mistake "gcloud is not installed; see https://cloud.google.com/sdk/docs/install"
}

# --- the slice -----------------------------------------------------------------------------------

tpus() {   # tpus (tpu-vm | queued-resources) VERB NAME FLAG...
  local words=(gcloud compute tpus "$@" --zone="$ZONE" --quiet)
  if [ -n "$DRY_RUN" ]; then printf '%q ' "${words[@]}"; echo; else "${words[@]}" < /dev/null; fi
}

described() {   # described KIND FIELD: the field, MISSING, or OFFLINE where gcloud got no answer
  if tpus "$1" describe "$NAME" --format="value($2)" 2> "$SCRATCH/errors"; then return; fi
  if grep -qiE 'NOT_FOUND|not found' "$SCRATCH/errors"; then echo MISSING; return; fi
  cat "$SCRATCH/errors" >&2
  echo OFFLINE
}

slice_state() {   # READY, GONE (to be replaced), MISSING, STOPPED, OFFLINE or COMING
  local state
  state=$(described tpu-vm state)
  if [ "$state" = MISSING ] && [ -n "$QUEUED" ]; then
    state=$(described queued-resources state.state)
    [ "$state" != ACTIVE ] || state=COMING
  fi
  case $state in
    READY | MISSING | STOPPED | OFFLINE) echo "$state" ;;
    PREEMPTED | TERMINATED | SUSPENDED | FAILED) echo GONE ;;
    *) echo COMING ;;
  esac
}

create_slice() {
  [ -n "$TYPE" ] || mistake "--type is missing: the accelerator to create, e.g. --type=v5litepod-16"
  [ -n "$RUNTIME" ] ||
    mistake "--runtime is missing: the TPU's software, e.g. --runtime=v2-alpha-tpuv5-lite"
  say "creating $NAME ($TYPE)"
  if [ -n "$QUEUED" ]; then
    tpus queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" \
      --runtime-version="$RUNTIME" ${SPOT:+--spot}
  else
    tpus tpu-vm create "$NAME" --accelerator-type="$TYPE" --version="$RUNTIME" ${SPOT:+--spot}
  fi
}

delete_slice() {
  say "deleting $NAME"
  if [ -n "$QUEUED" ]; then
    tpus queued-resources delete "$NAME" --force
  else
    tpus tpu-vm delete "$NAME"
  fi
}

ensure_slice() {   # returns when the slice is READY; "patiently": even if creating fails at first
  if [ -n "$DRY_RUN" ]; then create_slice; return; fi
  while :; do
    case $(slice_state) in
      READY) return ;;
      STOPPED) mistake "$NAME is stopped; start it with gcloud, or delete it: tpu_pod.sh delete" ;;
      GONE) delete_slice || sleep "$INTERVAL" ;;
      MISSING) create_slice || { [ "${1:-}" = patiently ] && sleep "$INTERVAL"; } || exit "$EXIT_FAILURE" ;;
      OFFLINE) [ "${1:-}" = patiently ] || exit "$EXIT_FAILURE"; sleep "$INTERVAL" ;;
      COMING) sleep "$INTERVAL" ;;
    esac
  done
}

# --- its hosts -----------------------------------------------------------------------------------
# On each, ~/condenser_jax has: code, venv, log, and of the latest start pid, status, lock (held as
# long as it lives, so that neither a restart of the host nor a pid used twice deceives) and asked.

on() { tpus tpu-vm ssh "$NAME" --worker="$1" --command="$2"; }   # on WORKERS BASH_SCRIPT

pack() {   # the code as a tar file
  cd "$ROOT"
  git rev-parse --git-dir > /dev/null 2>&1 || mistake "$ROOT is no git checkout: clone it with git"
  if [ -n "$REVISION" ]; then
    git rev-parse --quiet --verify "$REVISION^{commit}" > /dev/null ||
      mistake "--revision=$REVISION is no revision of $ROOT; see git log"
    git archive --format=tar.gz --output="$1" "$REVISION"
  else
    git ls-files -z --cached --others --exclude-standard |
      while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done |
      tar --create --gzip --file="$1" --null --files-from=-
  fi
}

install_code() {
  (pack "$SCRATCH/condenser_jax.tar.gz") || exit
  say "installing on every host"
  tpus tpu-vm scp "$SCRATCH/condenser_jax.tar.gz" "$NAME:" --worker=all &&
    on all "set -e
$SETUP
mkdir -p ~/condenser_jax && cd ~/condenser_jax
flock -n lock true || { echo 'a run is going on here; stop it first' >&2; exit 1; }
rm -rf code && mkdir code && tar -xzf ~/condenser_jax.tar.gz -C code
export PATH=~/.local/bin:\$PATH
command -v uv > /dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
uv venv --quiet --allow-existing --python 3.12 venv
uv pip install --quiet --python venv/bin/python -e './code[tpu]'"
}

start_hosts() {
  say "starting on every host: ${TRAIN[*]}"
  on all "set -e
cd ~/condenser_jax/code
exec 9> ../lock
flock -n 9 || { echo 'a run is going on here; stop it first' >&2; exit 1; }
rm -f ../status ../asked
export PATH=~/condenser_jax/venv/bin:\$PATH
nohup setsid bash -c '\"\$@\" & echo \$! > ../pid; wait \$!; echo \$? > ../status' - \
$(printf '%q ' "${TRAIN[@]}") >> ../log 2>&1 < /dev/null &"
}

# shellcheck disable=SC2016  # what follows is expanded on the hosts
{
  REPORT='cd ~/condenser_jax/code 2> /dev/null && [ -e ../pid ] || { echo host: idle; exit; }
cd ..
if ! flock -n lock true; then echo host: running
elif [ ! -s status ]; then echo host: lost
elif [ -e asked ] && grep -qx 75 status; then echo host: stopped
else echo host: "$(cat status)"; fi'
  STOP='cd ~/condenser_jax 2> /dev/null || exit 0
flock -n lock true || { touch asked; kill -TERM "$(cat pid)"; }'
  KILL='cd ~/condenser_jax 2> /dev/null || exit 0
flock -n lock true || { kill -KILL "$(cat pid)"; flock -w 60 lock true; }'
  # 134 is the end of those that lost a peer: the log to read is the peer's.
  SHOW_FAILURE='case $(cat ~/condenser_jax/status) in
0 | 75 | 134) ;; *) tail -n 40 ~/condenser_jax/log ;; esac 2> /dev/null'
}

host_states() { on all "$REPORT" | sed -n 's/^host: //p' | sort; }

# --- the watch -----------------------------------------------------------------------------------

launch() { install_code && start_hosts; }
restart_hosts() { on all "$KILL" && start_hosts; }
relaunch() { on all "$KILL" && launch; }

persist() { "$@" || retry "it could not be started" "$@"; }

retry() {   # retry WHAT_FAILED COMMAND...: in all at most RETRIES times
  local reason=$1
  shift
  while :; do
    failures=$((failures + 1))
    if [ "$failures" -gt "$RETRIES" ]; then
      on all "$KILL" || true
      say "$reason; --retries=$RETRIES are used up"
      exit "$EXIT_FAILURE"
    fi
    say "$reason; retry $failures of $RETRIES"
    if "$@"; then return; fi
  done
}

look() {   # at the hosts: starts them again, or leaves with the status of the run
  local states
  states=$(host_states) || { say "the hosts do not answer; looking again"; return; }
  any() { grep -qxE "$1" <<< "$states"; }
  if any 2; then
    on all "$SHOW_FAILURE" || true
    on all "$KILL" || true
    exit "$EXIT_USER_ERROR"
  elif any 'lost|idle'; then
    say "a host has restarted"
    persist relaunch
  elif any 134 && any running && ! grep -qvxE '0|75|134|running|stopped' <<< "$states"; then
    say "a host has lost another; waiting for the end of all"  # to read the log of the other
  elif grep -qvxE '0|75|running|stopped' <<< "$states"; then
    on all "$SHOW_FAILURE" || true
    retry "the run failed (${states//$'\n'/, })" restart_hosts
  elif any running; then
    return
  elif any stopped; then
    say "stopped as asked and saved; run it again to go on"
    exit "$EXIT_STOPPED"
  elif any 75; then
    say "the run was told to stop, and saved; going on"
    persist restart_hosts
  else
    say "done"
    exit 0
  fi
}

watch_run() {
  failures=0
  ensure_slice
  if [ -n "$DRY_RUN" ]; then launch; return; fi
  if [[ $(host_states) == *running* ]]; then say "it runs already; watching"; else persist launch; fi
  while sleep "$INTERVAL"; do
    case $(slice_state) in
      READY) look ;;
      GONE | MISSING)
        say "$NAME was taken away; making it anew"
        ensure_slice patiently
        persist launch ;;
      STOPPED) mistake "$NAME was stopped by somebody; start it with gcloud, then run this again" ;;
    esac
  done
}

main() {
  case ${1:-} in '' | -h | --help | help) usage; exit ;; esac
  local command=$1
  shift
  read_options "$@"
  check_options "$command"
  SCRATCH=$(mktemp -d)
  trap 'rm -rf "$SCRATCH"' EXIT
  case $command in
    run) watch_run ;;
    create) ensure_slice ;;
    install) install_code ;;
    start) start_hosts ;;
    status) tpus tpu-vm describe "$NAME" --format="value(state)"; on all "$REPORT" ;;
    logs) on "$WORKER" 'tail -n 200 -F ~/condenser_jax/log' ;;
    stop) on all "$STOP" ;;
    delete) delete_slice ;;
  esac
}

main "$@"
