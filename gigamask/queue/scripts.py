"""The Lua scripts: each is one atomic step, and does no harm when it runs twice.

KEYS and ARGV stand in the first comment of each. A message of stage `segment` is {job, region}, of the others
{job, act}.
"""

from __future__ import annotations

# KEYS stream. ARGV group, consumer, lease_ms. -> {id, fields, deliveries} or nil.
# XAUTOCLAIM COUNT 1 looks at ten pending entries at most, so the cursor is followed to the end.
CLAIM_SILENT = """
local cursor = '0-0'
repeat
  local answer = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], cursor, 'COUNT', 1)
  local entry = answer[2][1]
  if entry then
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)
    return {entry[1], entry[2], pending[1][4]}
  end
  cursor = answer[1]
until cursor == '0-0'
return nil
"""

_IF_OWNER = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2]) == 0 then return 0 end
"""

# KEYS stream. ARGV group, consumer, id. -> 1, or 0 when another consumer owns the message by now.
RENEW = (
    _IF_OWNER
    + """
return #redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
"""
)

# KEYS stream. ARGV group, consumer, id. -> 1, or 0 as above.
ACKNOWLEDGE = (
    _IF_OWNER
    + """
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
return 1
"""
)

# KEYS stream. ARGV group, consumer, id, deliveries that remain counted. -> 1, or 0 as above.
# Owned by nobody, who has been silent for longer than any lease.
PUT_BACK = (
    _IF_OWNER
    + """
redis.call('XCLAIM', KEYS[1], ARGV[1], 'nobody', 0, ARGV[3], 'IDLE', 1000000000, 'RETRYCOUNT', ARGV[4], 'JUSTID')
return 1
"""
)

# KEYS stream, dead stream. ARGV group, consumer, id, then the dead letter's fields. -> 1, or 0 as above.
BURY = (
    _IF_OWNER
    + """
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 10000, '*', unpack(ARGV, 4))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
return 1
"""
)

# KEYS stream. ARGV group, consumer. Only when it holds nothing: deleting a consumer forgets its pending messages.
LEAVE = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
"""

# KEYS jobs. ARGV first, last, prefix of a job's key, a field to leave out. -> each job's hash, flat, the newest first.
LIST = """
local function without(key, field)
  local flat = {}
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if name ~= field then
      flat[#flat + 1] = name
      flat[#flat + 1] = redis.call('HGET', key, name)
    end
  end
  return flat
end
local found = {}
for _, job in ipairs(redis.call('ZREVRANGE', KEYS[1], ARGV[1], ARGV[2])) do
  local key = ARGV[3] .. job
  local whole = redis.call('HEXISTS', key, ARGV[4]) == 0
  found[#found + 1] = whole and redis.call('HGETALL', key) or without(key, ARGV[4])
end
return found
"""

# KEYS job, jobs, ingest stream. ARGV job id, created_at, 1 to queue it, then the hash's fields. -> 1, or 0: is there.
CREATE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
if ARGV[3] == '1' then redis.call('XADD', KEYS[3], '*', 'job', ARGV[1], 'act', 'ingest') end
return 1
"""

# KEYS job. ARGV started_at. -> 1, or 0: not queued (any more).
START = """
if redis.call('HGET', KEYS[1], 'state') ~= 'queued' then return 0 end
redis.call('HSET', KEYS[1], 'state', 'running', 'started_at', ARGV[1])
redis.call('HINCRBY', KEYS[1], 'version', 1)
return 1
"""

# KEYS job. ARGV field, value. -> 1, or 0: the job is not being ingested.
NOTE_INGEST = """
local job = redis.call('HMGET', KEYS[1], 'state', 'stage')
if job[1] ~= 'running' or job[2] ~= 'ingest' then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""

# KEYS job, segment stream. ARGV job id, total, window, then fields. -> 1, or 0: it left the ingest stage before.
START_SEGMENT = """
local job = redis.call('HMGET', KEYS[1], 'state', 'stage')
if job[1] ~= 'running' or job[2] ~= 'ingest' then return 0 end
local fed = math.min(tonumber(ARGV[2]), tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], 'stage', 'segment', 'total', ARGV[2], 'next', fed, unpack(ARGV, 4))
redis.call('HINCRBY', KEYS[1], 'version', 1)
for index = 0, fed - 1 do redis.call('XADD', KEYS[2], '*', 'job', ARGV[1], 'region', index) end
return 1
"""

# KEYS job, bitmap, bitmap of the skipped, segment stream, assemble stream.
# ARGV job id, region, `done` or `skipped`, then label, pixels ...
# -> 1 counted, 0 counted before, -1 the job is no longer in this stage.
COMPLETE_REGION = """
local job = redis.call('HMGET', KEYS[1], 'state', 'stage', 'total', 'next')
if job[1] ~= 'running' or job[2] ~= 'segment' then return -1 end
if redis.call('SETBIT', KEYS[2], ARGV[2], 1) == 1 then return 0 end
for i = 4, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], 'area:' .. ARGV[i], ARGV[i + 1]) end
redis.call('HINCRBY', KEYS[1], ARGV[3], 1)
if ARGV[3] == 'skipped' then redis.call('SETBIT', KEYS[3], ARGV[2], 1) end
local total, following = tonumber(job[3]), tonumber(job[4])
if following < total then
  redis.call('XADD', KEYS[4], '*', 'job', ARGV[1], 'region', following)
  redis.call('HSET', KEYS[1], 'next', following + 1)
end
local counts = redis.call('HMGET', KEYS[1], 'done', 'skipped')
if tonumber(counts[1]) + tonumber(counts[2]) == total then
  redis.call('HSET', KEYS[1], 'stage', 'assemble')
  redis.call('HINCRBY', KEYS[1], 'version', 1)
  redis.call('XADD', KEYS[5], '*', 'job', ARGV[1], 'act', 'assemble')
end
return 1
"""

# KEYS bitmap ... -> of each bitmap, the places that are set.
SET_BITS = """
local found = {}
for k, name in ipairs(KEYS) do
  found[k] = {}
  local bytes = redis.call('GET', name) or ''
  for i = 1, #bytes do
    local byte = string.byte(bytes, i)
    for bit = 0, 7 do
      if byte >= 2 ^ (7 - bit) then
        byte = byte - 2 ^ (7 - bit)
        table.insert(found[k], (i - 1) * 8 + bit)
      end
    end
  end
end
return found
"""

# KEYS job, bitmap, bitmap of the skipped, assemble stream. ARGV job id, state, finished_at, error or '', then label,
# pixels ... where they are not what the regions counted.
# -> 1, 0 the job was final or not ready to succeed, -1 no such job. What was begun is discarded unless it succeeded.
FINISH = """
local job = redis.call('HMGET', KEYS[1], 'state', 'stage')
if not job[1] then return -1 end
if job[1] ~= 'queued' and job[1] ~= 'running' then return 0 end
if ARGV[2] == 'succeeded' and job[2] ~= 'assemble' then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'finished_at', ARGV[3])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'error', ARGV[4]) end
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], 'area:' .. ARGV[i], ARGV[i + 1]) end
redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('DEL', KEYS[2], KEYS[3])
if ARGV[2] ~= 'succeeded' then redis.call('XADD', KEYS[4], '*', 'job', ARGV[1], 'act', 'discard') end
return 1
"""

# KEYS owner, waiting. ARGV job id. -> 1: this job ingests the image, 0: another does, and this job waits for it.
TAKE_IMAGE = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  redis.call('SADD', KEYS[2], ARGV[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""

# KEYS owner, waiting, ingest stream. ARGV job id. -> jobs queued again, because the image is free.
RELEASE_IMAGE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local waiting = redis.call('SMEMBERS', KEYS[2])
for _, job in ipairs(waiting) do redis.call('XADD', KEYS[3], '*', 'job', job, 'act', 'ingest') end
redis.call('DEL', KEYS[1], KEYS[2])
return #waiting
"""
