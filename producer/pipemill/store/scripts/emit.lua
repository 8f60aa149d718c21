-- Append pieces of texts to their jobs' streams, each only if its lease is the owner's.
-- KEYS  1 lease hash
-- ARGV  1 stream prefix · 2 entries kept at least · 3 TTL (s) · 4 JSON, per piece: field · id · run · offset · text
-- Reply per piece: 1 done · 0 the lease was lost, nothing changed
-- A server without memory refuses it, as it should: what is told can wait, the end of a job can not.
local pieces, reply = cjson.decode(ARGV[4]), {}
for i = 1, #pieces, 5 do
  local field, id, run, offset, text = unpack(pieces, i, i + 4)
  local held = redis.call('HEXISTS', KEYS[1], field)
  if held == 1 then
    local key = ARGV[1] .. id
    redis.call('XADD', key, 'MAXLEN', '~', ARGV[2], '*', 'r', run, 'o', offset, 't', text)
    if offset == 0 then redis.call('EXPIRE', key, ARGV[3]) end
  end
  reply[#reply + 1] = held
end
return reply
