#!/bin/sh
# What the tests have git do, the one in the PATH or $GOVC_TEST_GIT: git_client.sh COMMAND ARGUMENTS, as
# server/tests/it/clients.rs says.
set -eu
git=${GOVC_TEST_GIT:-git}
command=$1
shift
case $command in
  clone) "$git" clone -q "$1" "$2" ;;
  shallow) "$git" clone -q --no-single-branch --depth "$3" "$1" "$2" ;;
  partial) "$git" clone -q --bare --filter "$3" "$1" "$2" ;;
  fetch) "$git" -C "$1" fetch -q origin ;;
  deepen) "$git" -C "$1" fetch -q --depth "$2" origin ;;
  unshallow) "$git" -C "$1" fetch -q --unshallow origin ;;
  push)
    folder=$1
    shift
    "$git" -C "$folder" push -q origin "$@" || {
      echo 'refused: see above' >&2
      exit 1
    }
    ;;
  *)
    echo "git_client.sh: unknown: $command" >&2
    exit 2
    ;;
esac
