#!/bin/sh
# Makes docker/.env and the secrets, each with 32 random bytes, for their owner's eyes only. What is
# there already stays as it is, so it can be run again at any time.
#
#   docker/make-secrets.sh                        # one machine
#   docker/make-secrets.sh ADDRESS                # the first of several, by its own address
#   docker/make-secrets.sh ADDRESS HEAD_ADDRESS   # a further one; the head's secrets come first
set -eu
umask 077
cd "$(dirname "$0")"
address=${1:-}
head=${2:-$address}
uid=$(id -u)
gid=$(id -g)
if [ "$uid" = 0 ]; then # the containers run as a normal user all the same
    uid=${SUDO_UID:-1000}
    gid=${SUDO_GID:-1000}
fi

random() { # 64 hexadecimal digits
    od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n'
}

secret() { # NAME, and its content on standard input
    if [ -e "secrets/$1" ]; then
        cat >/dev/null
        echo "kept    docker/secrets/$1"
    else
        cat >"secrets/$1.new"
        test -s "secrets/$1.new"
        mv "secrets/$1.new" "secrets/$1"
        echo "made    docker/secrets/$1"
    fi
}

setting() { # NAME VALUE: fills in its line of .env
    sed "s|^#\{0,1\}$1=.*|$1=$2|" .env >.env.new
    mv .env.new .env
}

mkdir -p secrets
if [ -n "$address" ] && [ "$head" != "$address" ]; then
    for name in ray_token aws_credentials; do
        if [ ! -s "secrets/$name" ]; then
            echo "make-secrets: docker/secrets/$name is missing; copy it from the head" >&2
            exit 2
        fi
    done
    chmod 600 secrets/*
else
    random | secret ray_token
    random | secret postgres_password
    random | secret mlflow_admin_password
    random | secret mlflow_secret_key
    random | cut -c 1-20 | tr -d '\n' | secret s3_access_key
    random | secret s3_secret_key
    printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' \
        "$(cat secrets/s3_access_key)" "$(cat secrets/s3_secret_key)" | secret aws_credentials
fi

if [ -e .env ]; then
    echo "kept    docker/.env"
else
    cp .env.example .env
    setting SWEEPS_UID "$uid"
    setting SWEEPS_GID "$gid"
    if [ -n "$address" ]; then
        setting SWEEPS_HOST "$address"
        setting SWEEPS_HEAD "$head"
        setting EXTRAS service,s3
        setting SWEEPS_STORAGE_URI s3://sweeps/checkpoints
        setting AWS_ENDPOINT_URL_S3 "http://$head:9000"
        setting S3_PUBLISH_HOST "$head"
    fi
    echo "made    docker/.env"
fi
if [ "$(id -u)" = 0 ]; then
    chown -R "$uid:$gid" secrets .env
fi
