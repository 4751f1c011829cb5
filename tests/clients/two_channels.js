// As remote-development apps bootstrap: a file by SFTP on one channel, its start by exec on the next.
// Arguments: port, user, key file. Prints what the program said; ends with its status.
"use strict";
const { readFileSync } = require("node:fs");
const { Client } = require("ssh2");

const [port, username, key] = process.argv.slice(2);
const client = new Client();
const fail = (error) => {
  console.error(String(error));
  process.exit(99);
};
client.on("error", fail);
client.on("ready", () => {
  client.sftp((error, sftp) => {
    if (error) fail(error);
    sftp.writeFile("server.sh", "echo started from $PWD; exit 7\n", (failed) => {
      if (failed) fail(failed);
      sftp.end();
      sftp.on("close", () =>
        client.exec("sh ./server.sh", (refused, stream) => {
          if (refused) fail(refused);
          stream.on("data", (data) => process.stdout.write(data));
          stream.on("close", (status) => {
            process.exitCode = status;
            client.end();
          });
        }),
      );
    });
  });
});
client.connect({ host: "127.0.0.1", port: Number(port), username, privateKey: readFileSync(key) });
