. /tmp/w/usr2.env; cd /tmp/w/usr2
c() { echo "\$ ${@:$#}" >/dev/null; curl -sS -w '\n[%{http_code}]' "$@" | cut -c1-${W:-420}; echo; }
J='Content-Type: application/json'
r=$(curl -sS -X POST "$USAGED/api/v1/admissions" -H "Authorization: Bearer $TOKEN" -H 'Idempotency-Key: interview-4' -H "$J" -d '{"user_id":"alice","estimated_duration_seconds":180,"file_size_bytes":12582912}'); echo "$r" | jq -c .; ID=$(jq -r .id <<<$r) LEASE=$(jq -r .lease_token <<<$r)
c "$USAGED/api/v1/admissions/$ID?wait=30s" -H "Authorization: Lease $LEASE"
c -X POST "$USAGED/api/v1/admissions/$ID/heartbeat" -H "Authorization: Lease $LEASE"
c -X POST "$USAGED/api/v1/admissions/$ID/complete"  -H "Authorization: Lease $LEASE" -H "$J" -d '{"duration_seconds":165}'
c -X POST "$USAGED/api/v1/admissions/$ID/release"   -H "Authorization: Lease $LEASE"
c -X POST "$USAGED/api/v1/admissions/$ID/force-release" -H "Authorization: Bearer $TOKEN" -H "$J" -d '{"reason":"its worker is gone"}'
c -X POST "$USAGED/api/v1/admissions/$ID/force-release" -H "Authorization: Bearer $OPERATOR" -H "$J" -d '{"reason":"its worker is gone"}'
c -X POST "$USAGED/api/v1/usage/check" -H "Authorization: Bearer $TOKEN" -H "$J" -d '{"user_id":"alice","estimated_duration_seconds":2400,"file_size_bytes":12582912}'
for p in "usage/current?user_id=alice" "usage/limits?user_id=alice" "usage/history?user_id=alice&limit=2" "usage/alerts?user_id=alice&unread=true" "usage/events?user_id=alice&period=1" "usage/events?user_id=alice&period=4" "usage/stats?user_id=alice&months=6" "usage/forecast?user_id=alice" "usage/what-if?user_id=alice&plan=pro" "usage/what-if?user_id=alice&plan=nope" "admissions?user_id=alice&state=Queued" "analytics/usage?user_id=alice&by=week&from=2026-03-01&to=2026-04-01" "analytics/usage?user_id=alice&by=day" "analytics/activity?user_id=alice" "analytics/engagement?user_id=alice" "analytics/largest?user_id=alice&limit=3" "usage/advice?user_id=alice" "plans" "usage/current?user_id=alice&max_age=5" "usage/current?user_id=alice&max_age=61" "usage/current" "usage/history?user_id=alice&limit=101" "usage/history?user_id=alice&limit=x" "usage/current?user_id=al%20ice" "usage/nope" "usage/current?user_id=alice&foo=1"; do echo "GET $p"; c "$USAGED/api/v1/$p" -H "Authorization: Bearer $TOKEN"; done
for p in "analytics/totals?by=plan" "analytics/totals?from=2026-11-01&to=2026-12-01&format=csv" "analytics/margins?by=plan" "analytics/utilisation" "analytics/spenders" "analytics/cohorts" "analytics/work" "analytics/forecast" "analytics/advice" "analytics/churn" "teams" "users?prefix=al" "resets?plan=free" "resets?state=coming" "reset-runs" "audit" "audit?user_id=alice" "queue" "clusters" "deliveries"; do echo "GET $p (operator)"; c "$USAGED/api/v1/$p" -H "Authorization: Bearer $OPERATOR"; done
for p in teams/newsroom teams/newsroom/usage "teams/newsroom/usage?period=3" "teams/newsroom/history?limit=2" teams/newsroom/largest teams/newsroom/members teams/newsroom/alerts "teams/newsroom/forecast" "teams/newsroom/analytics" teams/studio "teams/newsroom/notification-endpoints" "queue?team=newsroom" "deliveries?team=newsroom"; do echo "GET $p (manager)"; c "$USAGED/api/v1/$p" -H "Authorization: Bearer $MANAGER"; done
c -X PUT    "$USAGED/api/v1/teams/newsroom/members/mina" -H "Authorization: Bearer $MANAGER"
c -X PUT    "$USAGED/api/v1/teams/newsroom/members/alice" -H "Authorization: Bearer $MANAGER"
c -X DELETE "$USAGED/api/v1/teams/newsroom/members/mina" -H "Authorization: Bearer $MANAGER" -H "$J" -d '{"reason":"has left the newsroom"}'
echo USERS; c $USAGED/api/v1/users -H "Authorization: Bearer $OPERATOR" -H "$J" -d '{"user_id": "zoe", "plan": "starter", "time_zone": "Asia/Hong_Kong"}'
c $USAGED/api/v1/users -H "Authorization: Bearer $OPERATOR" -H "$J" -d '{"user_id": "alice", "plan": "starter", "time_zone": "Asia/Hong_Kong"}'
c -X PATCH $USAGED/api/v1/users/zoe -H "Authorization: Bearer $OPERATOR" -H "$J" -d '{"suspended": true, "reason": "the bill is open"}'
c -X PATCH $USAGED/api/v1/users/alice -H "Authorization: Bearer $OPERATOR" -H "$J" -d '{"suspended": true, "reason": "the bill is open"}'
c -X PUT $USAGED/api/v1/users/zoe/grants/sorry-2026-03 -H "Authorization: Bearer $OPERATOR" -H "$J" -d '{"credits": 40, "expires_at": "2026-06-01T00:00:00Z"}'
c -X PUT $USAGED/api/v1/users/zoe/grants/sorry-2026-03 -H "Authorization: Bearer $OPERATOR" -H "$J" -d '{"credits": 40, "expires_at": "2027-06-01T00:00:00Z"}'
c $USAGED/api/v1/users/zoe/reset -H "Authorization: Bearer $OPERATOR" -H "$J" -d '{"reason": "the report is due"}'
echo RECORD; r=$(curl -sS -X POST "$USAGED/api/v1/usage" -H "Authorization: Bearer $TOKEN" -H 'Idempotency-Key: export-7' -H "$J" -d '{"user_id":"alice","usage_type":"export","occurred_at":"2026-11-28T11:00:00Z","file_size_bytes":2048,"metadata":{"format":"srt"}}'); echo "$r" | jq -c .
c -X POST "$USAGED/api/v1/usage" -H "Authorization: Bearer $TOKEN" -H "$J" -d '[{"key":"e-1","user_id":"alice","usage_type":"export"}, {"key":"e-2","user_id":"alice","usage_type":"telegram"}]'
c -X POST "$USAGED/api/v1/usage" -H "Authorization: Bearer $TOKEN" -H "$J" -H 'ce-specversion: 1.0' -H 'ce-id: 7' -H 'ce-source: /exporter' -H 'ce-type: io.cantonesescribe.usage.export' -H 'ce-subject: alice' -H 'ce-time: 2026-11-28T11:00:00Z' -d '{"quantity":3}'
EVENT=$(jq -r '.event_id // .id' <<<$r)
c -X POST "$USAGED/api/v1/usage/$EVENT/reverse" -H "Authorization: Bearer $OPERATOR" -H 'Idempotency-Key: case-12' -H "$J" -d '{"reason":"sent twice"}'
c -X POST "$USAGED/api/v1/usage/adjustments" -H "Authorization: Bearer $OPERATOR" -H 'Idempotency-Key: case-13' -H "$J" -d '{"user_id":"alice","credits":2.5,"reason":"shared an account"}'
c "$USAGED/api/v1/usage/events/$EVENT" -H "Authorization: Bearer $TOKEN"
echo PORTAL; r=$(curl -sS -X POST "$USAGED/api/v1/users/alice/portal-tokens" -H "Authorization: Bearer $BACKEND" -H "$J" -d '{"ttl_seconds":900,"scope":"check"}'); echo "$r" | cut -c1-200; P=$(jq -r .token <<<$r); PI=$(jq -r .id <<<$r)
c "$USAGED/api/v1/usage/current?user_id=alice" -H "Authorization: Bearer $P"
c "$USAGED/api/v1/usage/current?user_id=mina" -H "Authorization: Bearer $P"
c "$USAGED/api/v1/usage/current?user_id=alice&access_token=$P"
curl -sSN -m 2 "$USAGED/api/v1/usage/stream" -H "Authorization: Bearer $P" | cut -c1-150
c -X DELETE "$USAGED/api/v1/users/alice/portal-tokens/$PI" -H "Authorization: Bearer $BACKEND"
c "$USAGED/api/v1/usage/current?user_id=alice" -H "Authorization: Bearer $P"
c -X DELETE "$USAGED/api/v1/users/alice/portal-tokens" -H "Authorization: Bearer $BACKEND"
c -X POST "$USAGED/api/v1/users/alice/portal-tokens" -H "Authorization: Bearer $TOKEN" -H "$J" -d '{}'
c -X POST "$USAGED/api/v1/users/alice/portal-tokens" -H "Authorization: Bearer $BACKEND" -H "$J" -d '{"ttl_seconds":5,"scope":"all"}'
echo STREAMS; curl -sSN -m 2 "$USAGED/api/v1/usage/stream?team=newsroom" -H "Authorization: Bearer $MANAGER" | cut -c1-250
curl -sSN -m 2 "$USAGED/api/v1/usage/stream" -H "Authorization: Bearer $TOKEN" | cut -c1-250
curl -sSN -m 2 "$USAGED/api/v1/usage/stream?user_id=alice&team=newsroom" -H "Authorization: Bearer $TOKEN" | cut -c1-250
curl -sSN -m 2 "$USAGED/api/v1/live" -H "Authorization: Bearer $OPERATOR" | cut -c1-450
et=$(curl -sSi "$USAGED/api/v1/usage/alerts?user_id=alice" -H "Authorization: Bearer $TOKEN" | tr -d '\r' | grep -i '^etag' | cut -d' ' -f2); echo "etag $et"; curl -sS -o /dev/null -w '%{http_code}\n' "$USAGED/api/v1/usage/alerts?user_id=alice" -H "Authorization: Bearer $TOKEN" -H "If-None-Match: $et"
curl -sSi "$USAGED/api/v1/usage/current?user_id=alice" -H "Authorization: Bearer $TOKEN" | grep -i ratelimit
curl -sS $USAGED/healthz; curl -sS $USAGED/readyz?verbose; curl -sS -o /dev/null -w '%{http_code} %{content_type}\n' $USAGED/docs  $USAGED/openapi.json; curl -sS $USAGED/metrics; curl -sS $USAGED/metrics -H "Authorization: Bearer $TOKEN"; curl -sS $USAGED/
