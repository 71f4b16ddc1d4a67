import { render } from "preact";
import { Client } from "./shell/client";
import { App } from "./view/app";
import { startFrames } from "./view/frames";
import "./style.css";

const root = document.getElementById("page");
if (root !== null) {
  const client = new Client(() => {
    render(<App client={client} />, root);
  });
  render(<App client={client} />, root);
  startFrames();
  client.start();
}
