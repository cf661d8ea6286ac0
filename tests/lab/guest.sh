#!/usr/bin/env bash
# Boots a guest with a kernel of its own in QEMU and runs one program in it, as root, on cgroup v2 with every controller.
# For what the machine's own kernel cannot show: limits of control groups on a host whose v2 tree has no controllers.
# Needs no root and no KVM: QEMU emulates, about 28 times slower, so nothing is timed in there. GUEST_ACCELERATOR=kvm is
# for machines on which that works (a /dev/kvm that is there need not).
#
#   guest.sh run PROGRAM [FILE...]   PROGRAM's exit code is this one's; FILEs are put into the guest at their own paths
#
# GUEST names the folder for kernel and image (kept for the next time), GUEST_WITHIN the seconds after which it is over.
# Needs Debian's packages: qemu-system-x86 busybox-static (and apt-get to fetch the kernel, once).
set -euo pipefail

GUEST=${GUEST:-/var/tmp/baton-guest}
GUEST_WITHIN=${GUEST_WITHIN:-600}
# Debian's kernel for virtual machines: small, and with all of cgroup v2.
KERNEL=linux-image-cloud-amd64

die() { echo "guest: $*" >&2; exit 2; }

kernel() {
  compgen -G "$GUEST/kernel/boot/vmlinuz-*" >/dev/null && return
  mkdir -p "$GUEST/kernel"
  local package
  package=$(apt-cache depends "$KERNEL" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | sed -n 1p) || true
  [ -n "$package" ] || die "apt-cache knows no $KERNEL: apt-get update"
  (cd "$GUEST" && apt-get download -q "$package" && dpkg -x "$package"_*.deb kernel && rm -f "$package"_*.deb)
  compgen -G "$GUEST/kernel/boot/vmlinuz-*" >/dev/null || die "$package has no kernel"
}

# A file at its own path, with the libraries it is linked to.
put() {
  local file
  for file in "$1" $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true); do
    [ -e "$image$file" ] || install -D "$file" "$image$file"
  done
}

image() {
  image=$GUEST/image
  rm -rf "$image"
  mkdir -p "$image"/{bin,dev,etc,proc,root,run,sys,tmp,usr/bin,var/tmp}
  chmod 1777 "$image/tmp" "$image/var/tmp"
  install "$(command -v busybox)" "$image/bin/busybox"
  local file
  for file in "$@"; do put "$file"; done
  # Users are looked up by name; the modules for that are loaded by the C library, not linked.
  printf 'root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n' >"$image/etc/passwd"
  printf 'root:x:0:\nwww-data:x:33:\n' >"$image/etc/group"
  printf 'passwd: files\ngroup: files\n' >"$image/etc/nsswitch.conf"
  cat >"$image/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin RUST_BACKTRACE=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
# The program is alone in a group of its own that was handed all controllers, as Delegate= would do it.
for controller in \$(cat /sys/fs/cgroup/cgroup.controllers); do echo "+\$controller" >/sys/fs/cgroup/cgroup.subtree_control; done
mkdir /sys/fs/cgroup/delegated
echo "guest: linux \$(uname -r), controllers: \$(cat /sys/fs/cgroup/delegated/cgroup.controllers)"
sh -c 'echo 0 >/sys/fs/cgroup/delegated/cgroup.procs; exec "\$@"' sh $(printf '%q ' "$1" ${GUEST_ARGS:-}) </dev/null
echo "guest: exit code \$?"
poweroff -f
INIT
  chmod +x "$image/init"
  (cd "$image" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >"$GUEST/image.gz")
}

run() {
  [ $# -ge 1 ] || die "run PROGRAM [FILE...]"
  kernel
  image "$@"
  # The timer of an emulator that gets no processor for a moment is not broken: the kernel must not panic over it.
  # The console is read by a pipe: what the guest prints is the result.
  timeout "$GUEST_WITHIN" qemu-system-x86_64 -accel "${GUEST_ACCELERATOR:-tcg}" -machine q35 -m 1024 -smp 1 -nodefaults -no-reboot \
    -display none -serial stdio -kernel "$GUEST"/kernel/boot/vmlinuz-* -initrd "$GUEST/image.gz" \
    -append "console=ttyS0 quiet panic=-1 loglevel=3 no_timer_check" </dev/null | tee "$GUEST/console.log" || true
  local code
  code=$(tr -d '\r' <"$GUEST/console.log" | sed -n 's/^guest: exit code \([0-9]*\)$/\1/p' | tail -n 1)
  [ -n "$code" ] || die "it did not come to its end within ${GUEST_WITHIN} s; $GUEST/console.log has what it printed"
  return "$code"
}

case ${1:-} in
  run) shift; run "$@" ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
