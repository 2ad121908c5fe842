#!/usr/bin/env bash
# Builds .venv from lock-cpu.txt and installs this project into it, editable. `make env` calls it when the lock, the
# project file or this script has changed since the last build; an unchanged lock keeps what is installed.
# Sources are whatever pip is configured with on this machine; pip.conf's settings are handed on to uv, which does not
# read it. torch's CPU build is not on PyPI: when the configured sources lack it, it comes from PyTorch's own index.
# Whatever the source, a file whose SHA-256 is not in the lock is refused.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
lock=lock-cpu.txt
pytorch_index=https://download.pytorch.org/whl/cpu
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { echo "env: $*"; }
die() { echo "env: $*" >&2; exit 2; }
pinned() { sed -n "s/^$1==\([^ ;]*\).*/\1/p" "$lock"; }
lines_of() { grep -E "^($1)==" "$lock" >"$venv/part.txt"; } # those of some packages: setuptools|wheel

python_found() { # prints the first interpreter that starts and is new enough; a pyenv shim can exist and not start
  local candidate
  for candidate in python3.11 python3.12 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

pip_setting() { # one of pip's own settings, by the strongest of its sources
  local scope value
  for scope in :env: site user global; do
    if value=$("$venv/bin/python" -m pip config get "$scope.$1" 2>/dev/null); then
      echo "$value"
      return
    fi
  done
}

make_venv() {
  local python
  python=$(python_found) || python=
  rm -rf "$venv"
  if command -v uv >/dev/null; then
    say "making $venv with $(uv --version)"
    uv venv --quiet --python "${python:-3.11}" "$venv"
    return
  fi
  [ -n "$python" ] || die "needs Python 3.11 or newer as python3.11, python3.12 or python3 (or uv, which fetches one)"
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    die "$python cannot make virtual environments: install its venv package (Debian and Ubuntu: python3-venv), or uv"
  say "making $venv with $("$python" --version) and pip"
  "$python" -m venv "$venv" || die "$python -m venv $venv failed, see above"
}

hand_to_uv() { # VARIABLE SETTING: pip's setting, unless uv has its own
  local value
  [ -z "${!1:-}" ] || return 0
  value=$(pip_setting "$2" | tr -s ' \n' "$3$3" | sed "s/$3\$//")
  [ -z "$value" ] || export "$1=$value"
}

choose_installer() { # sets `install`, a command to which requirements are appended
  if ! command -v uv >/dev/null; then
    install=("$venv/bin/python" -m pip install -qq --no-deps)
    return
  fi
  # unsafe-best-match is pip's own rule (any source may have it); every version is pinned, so there is no best to confuse
  install=(uv pip install --quiet --python "$venv/bin/python" --no-deps --index-strategy unsafe-best-match)
  hand_to_uv UV_FIND_LINKS find-links ,
  hand_to_uv UV_DEFAULT_INDEX index-url ' '
  hand_to_uv UV_INDEX extra-index-url ' '
}

install_torch() {
  local version offered
  version=$(pinned torch)
  lines_of torch
  offered=$("$venv/bin/python" -m pip index versions torch 2>/dev/null) || offered=
  if [[ $offered == *"$version"* ]]; then
    say "torch $version from this machine's configured sources"
    "${install[@]}" --require-hashes -r "$venv/part.txt"
  else
    say "torch $version from $pytorch_index"
    "${install[@]}" --require-hashes --index-url "$pytorch_index" -r "$venv/part.txt"
  fi
}

install_lock() {
  say "installing $(grep -c == "$lock") packages, about 3.5 GB on disk: 1 minute with uv, 3 to 6 with pip"
  lines_of "pip|setuptools"
  if command -v uv >/dev/null; then
    uv pip install --quiet --python "$venv/bin/python" --no-deps --require-hashes -r "$venv/part.txt"
  else
    "$venv/bin/python" -m pip install -qq --no-deps --require-hashes -r "$venv/part.txt"
  fi
  choose_installer
  install_torch
  grep -v '^torch==' "$lock" >"$venv/part.txt"
  # without isolation, the few source distributions are built by the lock's setuptools and not by the newest
  "${install[@]}" --require-hashes --no-build-isolation -r "$venv/part.txt"
  sha256sum <"$lock" >"$venv/lock.sha256"
}

start=$SECONDS
if [ "$(cat "$venv/lock.sha256" 2>/dev/null)" = "$(sha256sum <"$lock")" ] && "$venv/bin/python" -c '' 2>/dev/null; then
  say "$lock is installed already"
  choose_installer
else
  make_venv
  install_lock
fi
say "installing this project, editable"
"${install[@]}" --no-build-isolation -e .
touch "$venv/.stamp"
say "ready in $((SECONDS - start)) s: $venv, $(du -sh "$venv" | cut -f1)"
