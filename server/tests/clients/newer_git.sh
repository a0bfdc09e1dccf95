#!/bin/sh
# Runs a program of the newer git by the loader and libraries that came with it, so that the system's may be older:
# scripts/clients copies this to bin/ and links the name of each program to it.
name=${0##*/}
bin=$(cd "$(dirname "$0")" && pwd)
root=${bin%/bin}
# Git starts its other programs from here, and finds them wrapped, too.
export GIT_EXEC_PATH="$bin" GIT_TEMPLATE_DIR="$root/usr/share/git-core/templates"
exec "$root/loader" --argv0 "$name" --library-path "$root/libraries" "$root/usr/lib/git-core/$name" "$@"
