// The clients of Python, in a process of their own (client.py), as those of JavaScript are called.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const CLIENT = fileURLToPath(new URL("client.py", import.meta.url));

export class Python {
  #child;
  #waiting = [];
  #listeners = [];

  /** In the mode `rpc`, `in-process` or `evaluator`. */
  constructor(mode) {
    const env = { ...process.env, PYTHONDONTWRITEBYTECODE: "1" };
    this.#child = spawn(process.env.CONFORMANCE_PYTHON, [CLIENT, mode], { env, stdio: ["pipe", "pipe", "inherit"] });
    const failed = (why) => this.#waiting.splice(0).forEach(({ reject }) => reject(why));
    this.#child.once("error", failed);
    this.#child.once("close", (code) => failed(new Error(`the client ended with ${code}`)));
    createInterface({ input: this.#child.stdout }).on("line", (line) => {
      const { listener, flags, failure, answer } = JSON.parse(line);
      if (listener !== undefined) return this.#listeners[listener](flags);
      const { resolve, reject } = this.#waiting.shift();
      if (failure) reject(new Error(failure));
      else resolve(answer);
    });
  }

  open(port, options, available) {
    return this.#do("open", port, options, available);
  }

  listen(event, heard) {
    const listener = this.#listeners.push((flags) => heard(event, flags)) - 1;
    return this.#do("listen", listener, event);
  }

  evaluate(type, key, fallback, context) {
    return this.#do("evaluate", type, key, fallback, context);
  }

  close() {
    return this.#do("close");
  }

  end() {
    this.#child.stdin.end();
  }

  #do(what, ...arguments_) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#child.stdin.write(`${JSON.stringify([what, arguments_])}\n`);
    });
  }
}
