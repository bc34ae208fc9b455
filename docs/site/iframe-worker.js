/* A page that was opened as a file may not start a worker. There, the search runs in a frame of the page instead. */
"use strict";
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = this.onerror = null;
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      const inside = (this.inside = frame.contentWindow);
      const tell = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      const load = (script) =>
        new Promise((done, failed) => {
          const tag = frame.contentDocument.createElement("script");
          [tag.src, tag.onload, tag.onerror] = [script, done, failed];
          frame.contentDocument.body.appendChild(tag);
        });
      inside.postMessage = tell;
      inside.importScripts = (...scripts) => scripts.reduce((before, script) => before.then(() => load(script)), Promise.resolve());
      inside.addEventListener("error", (event) => this.onerror && this.onerror(event));
      this.ready = load(url);
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.inside.frameElement.remove();
    }
  };
}
