#!/bin/bash
# A SLURM cluster of one node with accounting, in a folder of its own that only root may enter: to try the SLURM launcher as root,
# and for the tests marked `slurm`.
#
#   settings=$(scripts/slurm_node.sh up) && eval "$settings"      install what is missing, start what does not run, export SLURM_CONF
#   scripts/slurm_node.sh status      what runs; exit code 1 unless the node takes jobs and accounting answers
#   scripts/slurm_node.sh down        cancel all jobs, stop the daemons, remove the folder
#
# Needs root on Debian 12 or a relative of it; neither systemd nor cgroups. `up` may be called at any time: it leaves alone what runs,
# restarts what died, and begins anew when an old folder cannot be brought back to life. Set by the environment:
#
#   SLURM_NODE_DIR              the folder (default /var/lib/slurm_node)
#   SLURM_NODE_CPUS             CPUs the node pretends to have (default: those it has, at least the 4 that our jobs ask for)
#   SLURM_NODE_MAX_ARRAY_SIZE   MaxArraySize (default 1001, as SLURM's own); a small one forces the launcher to split its arrays
set -euo pipefail

say() { echo "slurm_node: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

DIR=${SLURM_NODE_DIR:-/var/lib/slurm_node}
[ -d "$(dirname "$DIR")" ] || fail "there is no folder $(dirname "$DIR") for $(basename "$DIR"); make it first"
DIR=$(realpath "$(dirname "$DIR")")/$(basename "$DIR") # a link in the folder's own place is not followed
CPUS=${SLURM_NODE_CPUS:-$(($(nproc) > 4 ? $(nproc) : 4))}
MAX_ARRAY_SIZE=${SLURM_NODE_MAX_ARRAY_SIZE:-1001}
NODE=$(hostname)
DAEMONS=(munged mariadbd slurmdbd slurmctld slurmd) # in the order of starting
export SLURM_CONF=$DIR/slurm.conf
export PATH=$PATH:/usr/sbin:/sbin

wait_for() { # wait_for SECONDS COMMAND...: until the command succeeds
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}

check_folder() { # refuse what another user could have put there or could change, and what this script did not make
    local above=$DIR
    [[ $DIR =~ ^[A-Za-z0-9/._-]+$ ]] || fail "SLURM does not take the name $DIR; choose letters, digits, dots and dashes"
    while [ "$above" != / ]; do
        above=$(dirname "$above")
        [ "$(stat -c %u "$above")" = 0 ] || [ -O "$above" ] || fail "$above is another user's; choose another SLURM_NODE_DIR"
        [ -z "$(find "$above" -maxdepth 0 -perm /022 ! -perm -1000)" ] || fail "others may write to $above; choose another SLURM_NODE_DIR"
    done
    [ -e "$DIR" ] || [ -L "$DIR" ] || return 0
    [ -d "$DIR" ] && [ ! -L "$DIR" ] && [ -O "$DIR" ] || fail "$DIR is no folder of yours, or a link; remove it, or choose another SLURM_NODE_DIR"
    [ -z "$(find "$DIR" -maxdepth 0 -perm /022)" ] || fail "others may write to $DIR; remove it, or choose another SLURM_NODE_DIR"
    [ -e "$DIR/made_by_slurm_node" ] || [ -z "$(ls -A "$DIR")" ] || fail "$DIR holds something else; choose another SLURM_NODE_DIR"
}

install_packages() {
    local missing=()
    for program in "${DAEMONS[@]}" sbatch sacct mariadb mariadb-install-db; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "missing: ${missing[*]}; install SLURM with slurmdbd, munge and MariaDB, there is no apt-get here"
    say "installing SLURM, munge and MariaDB (missing: ${missing[*]})"
    # Ours are the only daemons wanted: the packages' own services are not started.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
        trap "rm -f $policy" EXIT
    fi
    local log
    log=$(mktemp)
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        slurm-wlm slurmdbd munge mariadb-server; } >"$log" 2>&1 || { tail -20 "$log" >&2; fail "apt-get failed, see $log"; }
    rm -f "$log"
}

pid_of() { # prints the process id of one of our daemons if it lives; a stale file may name another's process or a dead one's
    local pid name state
    pid=$(cat "$DIR/$1.pid" 2>/dev/null) && read -r _ name state _ 2>/dev/null <"/proc/$pid/stat" || return 1
    [ "$name" = "($1)" ] && [ "$state" != Z ] && echo "$pid"
}

free_ports() { # four ports nobody listens on, below the range from which the kernel gives out ports by itself
    local port found=()
    while ((${#found[@]} < 4)); do
        port=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || found+=("$port")
    done
    echo "${found[@]}"
}

make_folder() {
    mkdir -m 700 "$DIR" # fails where something is
    touch "$DIR/made_by_slurm_node"
    mkdir "$DIR"/{state,spool,munge,mysql}
    free_ports >"$DIR/ports"
    (umask 077 && head -c 1024 /dev/urandom >"$DIR/munge/key" && head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$DIR/password")
    mariadb-install-db --no-defaults --user=root --datadir="$DIR/mysql" --skip-test-db \
        --auth-root-authentication-method=socket >"$DIR/mariadb-install.log" 2>&1 || fail "mariadb-install-db failed, see $DIR/mariadb-install.log"
    echo "$NODE" >"$DIR/node" # last: a folder without it is incomplete
}

write_configuration() { # to $1; the node is honest about nothing but its name, so config_overrides
    local database dbd ctld d
    read -r database dbd ctld d <"$DIR/ports"
    cat >"$1/slurm.conf" <<CONF
ClusterName=node
SlurmctldHost=$NODE(127.0.0.1)
SlurmctldPort=$ctld
SlurmdPort=$d
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/socket
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
MaxArraySize=$MAX_ARRAY_SIZE
# A cluster for tests answers at once: jobs start in the second in which they may, and are killed soon after they were asked to end.
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,sched_min_interval=0
KillWait=5
CompleteWait=0
# Jobs in "urgent" preempt those in "main", which get their signal, a grace time, and are requeued.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
NodeName=$NODE NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=65536 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=$NODE Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=$NODE MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$dbd
AccountingStoragePass=$DIR/munge/socket
AccountingStorageEnforce=limits,qos
# Without cgroups it is SLURM itself that kills a job which takes more memory than it asked for.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
CONF
    echo "NodeName=$NODE Name=gpu File=/dev/null" >"$1/gres.conf" # a GPU on paper, so that requests for one are accepted
    (umask 077 && cat >"$1/slurmdbd.conf") <<CONF
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$dbd
SlurmUser=root
LogFile=$DIR/slurmdbd.log
PidFile=$DIR/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$database
StorageUser=slurm
StoragePass=$(cat "$DIR/password")
StorageLoc=slurm_acct
CONF
}

configure() { # rewrite the configuration; daemons that run with another are restarted
    local fresh
    fresh=$(mktemp -d)
    write_configuration "$fresh"
    if ! cmp -s "$fresh/slurm.conf" "$DIR/slurm.conf"; then
        stop slurmd && stop slurmctld
    fi
    cp -p "$fresh"/*.conf "$DIR"
    chown root:root "$DIR"/*.conf && chmod 644 "$DIR/slurm.conf" "$DIR/gres.conf"
    rm -r "$fresh"
}

sql() { mariadb --no-defaults --socket="$DIR/mysql/socket" -N -e "$1"; }

start() { # start DAEMON unless it runs
    pid_of "$1" >/dev/null && return
    local database password
    read -r database _ <"$DIR/ports"
    password=$(cat "$DIR/password")
    case $1 in
    munged) munged --force --num-threads=2 --key-file="$DIR/munge/key" --socket="$DIR/munge/socket" --pid-file="$DIR/munged.pid" \
        --seed-file="$DIR/munge/seed" --log-file="$DIR/munged.log" ;;
    mariadbd) setsid mariadbd --no-defaults --user=root --datadir="$DIR/mysql" --socket="$DIR/mysql/socket" --port="$database" \
        --bind-address=127.0.0.1 --innodb-buffer-pool-size=64M --pid-file="$DIR/mysql/mariadbd.pid" & echo $! >"$DIR/mariadbd.pid" ;;
    *) "$1" ;;
    esac </dev/null >>"$DIR/$1.out" 2>&1
    case $1 in # each needs the one before
    munged) wait_for 10 munge -S "$DIR/munge/socket" -n ;;
    mariadbd) wait_for 60 sql "SELECT 1" && sql "CREATE DATABASE IF NOT EXISTS slurm_acct;
        CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED BY '$password'; GRANT ALL ON slurm_acct.* TO slurm@localhost;
        CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY '$password'; GRANT ALL ON slurm_acct.* TO slurm@'127.0.0.1'" ;;
    slurmdbd) wait_for 20 sacctmgr -n list cluster ;;
    slurmctld) wait_for 30 scontrol ping ;;
    slurmd) wait_for 30 pid_of slurmd ;;
    esac
}

gone() { ! pid_of "$1"; }

stop() { # stop DAEMON if it runs; killed when it does not go by itself
    local pid
    pid=$(pid_of "$1") || return 0
    kill "$pid" 2>/dev/null || true
    wait_for 20 gone "$1" || kill -9 "$pid" 2>/dev/null || true
    wait_for 5 gone "$1" || true
}

node_is_up() { sinfo -h -N -n "$NODE" -o %T 2>/dev/null | grep -qE '^(idle|mixed|allocated)$'; }

accounting_works() { timeout 10 sacct -n -X >/dev/null 2>&1 && sacctmgr -n list cluster format=cluster,controlhost | grep -q 127.0.0.1; }

free_node() { # of jobs that it lost in a crash and whose end it would wait for
    scontrol update nodename="$NODE" state=down reason=crash && scontrol update nodename="$NODE" state=resume
} 2>/dev/null

start_all() {
    for daemon in "${DAEMONS[@]}"; do
        start "$daemon" || { say "$daemon does not start, see $DIR/$daemon.out and $DIR/$daemon.log"; return 1; }
    done
    wait_for 10 node_is_up || { free_node && wait_for 20 node_is_up; } ||
        { say "the node takes no jobs: $(sinfo -h -o '%T %E' 2>&1), see $DIR/slurmd.log"; return 1; }
    wait_for 30 accounting_works || { say "sacct does not answer, see $DIR/slurmdbd.log"; return 1; }
}

up() {
    [ "$(id -u)" = 0 ] || fail "run me as root: the daemons start jobs and own their folder"
    install_packages
    if [ "$(cat "$DIR/node" 2>/dev/null)" != "$NODE" ]; then
        [ ! -e "$DIR" ] || say "$DIR is incomplete or was made for another host name; beginning anew"
        down
        make_folder
    fi
    configure
    if ! start_all && ! start_all; then # once more, for a daemon that was about to end when we looked
        say "beginning anew in $DIR"
        local failed
        failed=$(mktemp -d -t slurm_node.XXXXXX)
        cp "$DIR"/*.log "$DIR"/*.out "$failed" 2>/dev/null || true
        down && make_folder && configure && start_all || fail "could not start; the logs are in $DIR, those of the first attempt in $failed"
    fi
    echo "export SLURM_CONF=$SLURM_CONF"
}

leftovers() { # process ids of this folder's daemons, also of those whose pid file is gone, and of what their jobs started
    local environ process
    for environ in $(grep -lzx "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ 2>/dev/null); do
        process=${environ%/environ}
        if grep -qxE 'munged|mariadbd|slurm(dbd|ctld|scriptd|d|stepd)' "$process/comm" 2>/dev/null ||
            grep -qz '^SLURM_JOB_ID=' "$environ" 2>/dev/null; then
            basename "$process"
        fi
    done
}

down() {
    if pid_of slurmctld >/dev/null && timeout 10 scancel --user=root 2>/dev/null; then
        wait_for 15 eval '[ -z "$(squeue -h)" ]' || say "some jobs did not end"
    fi
    local i pid
    for ((i = ${#DAEMONS[@]} - 1; i >= 0; i--)); do stop "${DAEMONS[i]}"; done
    for pid in $(leftovers); do kill -9 "$pid" 2>/dev/null || true; done
    rm -rf "$DIR"
}

status() {
    local daemon
    for daemon in "${DAEMONS[@]}"; do echo "$daemon: $(pid_of "$daemon" || echo 'does not run')"; done
    pid_of slurmctld >/dev/null && node_is_up && accounting_works && sinfo
}

case ${1-} in
up | down | status) check_folder && "$1" ;;
*) fail "usage: $0 up|down|status" ;;
esac
