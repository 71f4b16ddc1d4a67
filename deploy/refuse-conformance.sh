#!/bin/sh
# Refuses programs that were built for conformance suites (cargo feature `conformance`): their switch has no guard, so a controller
# could see and forge what sensors say. And those of `cargo xtask chaos` (cargo feature `kill-points`), which die when told to. To be run on whatever is installed or put into an image: refuse-conformance.sh PROGRAM...
set -eu
for program in "$@"; do
  version=$("$program" --version)
  case $version in
    *+conformance*)
      echo "refused: $program is $version, a build without guard; build it without the cargo feature \`conformance\`" >&2
      exit 1
      ;;
    *+kill-points*)
      echo "refused: $program is $version, a build that dies when told to; build it without the cargo feature \`kill-points\`" >&2
      exit 1
      ;;
  esac
  echo "$program: $version"
done
