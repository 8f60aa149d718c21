-- Forget dead letters, with their payloads and histories.
-- KEYS  1 times of dead letters · 2 dead letters
-- ARGV  1 prefix of dead payloads · 2 prefix of dead histories · 3.. ids
-- Reply per id: 1 done · 0 there was none
local reply = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local size = string.match(redis.call('HGET', KEYS[2], id) or '', '^{"at":[%d%.]+,"size":(%d+)')
  local there = redis.call('ZREM', KEYS[1], id)
  if there == 1 then
    if size then redis.call('HINCRBY', KEYS[2], '', '-' .. size) end
    redis.call('HDEL', KEYS[2], id)
    redis.call('UNLINK', ARGV[1] .. id, ARGV[2] .. id)
  end
  reply[#reply + 1] = there
end
return reply
