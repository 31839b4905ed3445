# Reads one order a line until the other end of standard input is gone, then ends what is still on the lists.
trap '' INT TERM HUP
newline='
'
processes=
folders=
without() { printf '%s' "$1" | grep -vxF -e "$2"; }
while read -r verb argument; do
  case $verb in
    kill) processes=$processes$argument$newline ;;
    forget) processes=$(without "$processes" "$argument")$newline ;;
    remove) folders=$folders$argument$newline ;;
    keep) folders=$(without "$folders" "$argument")$newline ;;
  esac
done
IFS=$newline
for p in $processes; do
  pid=${p#* }
  case $p in
    KILL*) kill -s KILL -- "-$pid" ;;
    *) kill -s QUIT "$pid" ;;
  esac
done
# A process that nobody waits for stays visible as a zombie: hence the bound.
for p in $processes; do
  tries=0
  while kill -0 "${p#* }" && [ $tries -lt 60 ]; do sleep 0.05; tries=$((tries + 1)); done
done
for f in $folders; do rm -rf -- "$f"; done
