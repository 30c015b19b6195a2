// The token manager of the real qwen-code CLI as a peer: `node qwen_peer.mjs <npm folder> <service base URL>`.
// Reads commands from stdin, one a line ("go", "force", "quit"), answers each with one line of JSON.
// Its file is found through QWEN_HOME and HOME, as in the CLI. Only fetch is replaced: its host is a constant.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, service] = process.argv.slice(2);
const realFetch = globalThis.fetch;
globalThis.fetch = (url, options) =>
  realFetch(String(url).replace('https://chat.qwen.ai', service), options);

async function load() {
  const chunks = path.join(folder, 'node_modules/@qwen-code/qwen-code/chunks');
  if (existsSync(chunks)) {
    for (const name of readdirSync(chunks).filter((name) => name.endsWith('.js'))) {
      const text = readFileSync(path.join(chunks, name), 'utf8');
      if (text.includes('var SharedTokenManager =') && text.includes('var QwenOAuth2Client =')) {
        return import(pathToFileURL(path.join(chunks, name)));
      }
    }
  }
  throw new Error(`no token manager below ${folder}`);
}

const { SharedTokenManager, QwenOAuth2Client } = await load();
const manager = SharedTokenManager.getInstance();
process.stdout.write(JSON.stringify({ ready: true }) + '\n');

for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'quit') break;
  let answer;
  try {
    manager.clearCache(); // as a CLI that was just started
    const credentials = await manager.getValidCredentials(new QwenOAuth2Client(), line === 'force');
    answer = { tokens: [credentials.access_token], failed: [] };
  } catch (error) {
    answer = { tokens: [], failed: [`${error.type}: ${error.message}`] };
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}
process.exit(0);
