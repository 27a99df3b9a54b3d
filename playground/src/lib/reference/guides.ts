// The code of the guides at the top of the reference. The lines of the streams and of the error are shown, the others are run by a test.

/** As docs/streaming.md has them. */
export const RAW_STREAM = `{"type":"info","message":"Loading model tiger-nano"}
{"type":"delta","delta":"The capital of Peru"}
{"type":"delta","delta":" is Lima."}
{"type":"stop","stop_reason":"end_turn","usage":{"duration":0.01,"input_tokens":12,"cached_tokens":0,"output_tokens":8}, …}`;

export const RAW_ERROR = `{
  "error": {
    "type": "validation",
    "code": "invalid_parameter",
    "message": "\`temperature\` is 3; it must be between 0 and 2",
    "param": "temperature",
    "request_id": "req_3fa85f6457174562"
  }
}`;

export const EXPORT = 'export TIGER_API_KEY=tiger_…';

export const KEEP = `(umask 077; cat > ~/.tiger_key)    # paste the key, press Enter, then Ctrl+D
echo 'export TIGER_API_KEY=$(cat ~/.tiger_key)' >> ~/.bashrc    # zsh: ~/.zshrc`;

export const header = (origin: string) => `curl ${origin}/v1/models \\\n  -H "Authorization: Bearer $TIGER_API_KEY"`;

/** Guides by their place in the address. */
export const GUIDES = ['start', 'auth', 'streaming', 'errors'] as const;
