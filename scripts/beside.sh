# Sourced by the scripts that make an environment beside the project's own, from the project's root:
# a folder with packages of its own, which sees all packages of .venv. Nothing in .venv changes.

# Usage: make_beside FOLDER, then install into FOLDER with --no-deps.
make_beside() {
    local folder=$1 project own
    if [ ! -x .venv/bin/python ]; then
        echo "The project's own environment is missing. Make it first: make .venv/ready" >&2
        exit 1
    fi
    [ -x "$folder/bin/python" ] || .venv/bin/python -m venv "$folder"
    echo '*' >"$folder/.gitignore"
    project=$(site_of .venv/bin/python)
    own=$(site_of "$folder/bin/python")
    # Through addsitedir, so that the project's editable install and its .pth files count here too.
    printf 'import site; site.addsitedir(%s)\n' "'$project'" >"$own/_project.pth"
}

site_of() { "$1" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])'; }
