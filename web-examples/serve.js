// Serves the pages of this folder, and nothing else of it, on http://localhost:8080 (or $PORT).

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname } from "node:path";
import { pathToFileURL } from "node:url";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".map": "application/json",
};

const PAGES = /^\/(index\.html|(rest|grpc-web|shared)\/([\w-]+|dist\/[\w-]+)\.(html|css|js|js\.map))$/;

/**
 * Starts the server and resolves to it once it listens. Port 0 is any free one.
 * @param {number} port
 * @returns {Promise<import("node:http").Server>}
 */
export function serve(port) {
  const server = createServer(async (request, response) => {
    const [pathname = "/"] = (request.url ?? "/").split("?");
    if (/^\/(rest|grpc-web)$/.test(pathname)) {
      response.writeHead(301, { location: `${pathname}/` }).end();
      return;
    }
    const path = pathname.replace(/\/$/, "/index.html");
    const body = PAGES.test(path) && (await readFile(new URL(`.${path}`, import.meta.url)).catch(() => undefined));
    if (!body) {
      response.writeHead(404, { "content-type": "text/plain" }).end("There is no such page.\n");
      return;
    }
    response
      .writeHead(200, {
        "content-type": TYPES[extname(path)],
        "cache-control": "no-store",
        // Scripts and styles from here only; the service may be anywhere.
        "content-security-policy": "default-src 'self'; connect-src http: https:; img-src data:",
      })
      .end(body);
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "localhost", () => resolve(server));
  });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const server = await serve(Number(process.env.PORT ?? 8080));
  console.log(`The examples are on http://localhost:${server.address().port}/`);
}
