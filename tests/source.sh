# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash

# copy_source DIRECTORY: into it, what git would commit of the current directory;
# all there is if that is no checkout.
copy_source ()
{
  local list=(git ls-files -z --cached --others --exclude-standard)
  [ -e .git ] || list=(find . -type f -print0)
  # shellcheck disable=SC2016
  "${list[@]}" |
    xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh |
    xargs -0 cp --parents -t "$1"
}
