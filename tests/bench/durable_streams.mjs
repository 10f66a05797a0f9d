// The reference server of Durable Streams with its file store: prints its port and serves until it is killed.
// node durable_streams.mjs FOLDER DATA: npm has installed @durable-streams/server in FOLDER; streams go to DATA.

import { createRequire } from "node:module"
import { join, resolve } from "node:path"

const [folder, dataDir] = process.argv.slice(2)
const { DurableStreamTestServer } = createRequire(join(resolve(folder), "package.json"))("@durable-streams/server")

console.info = () => {} // what it tells about its streams: the port is all that is printed
const server = new DurableStreamTestServer({ port: 0, host: "127.0.0.1", dataDir })
process.stdout.write(`${new URL(await server.start()).port}\n`)
