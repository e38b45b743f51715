// Browsers start no worker from a file, and the site's search is one. Opened from a folder, it runs in a hidden frame
// instead, which has what the search uses of a worker: messages both ways, and importScripts.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(source) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = "<!doctype html>";
      this.scope = new Promise((resolve) => {
        frame.onload = async () => {
          const scope = frame.contentWindow;
          scope.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          scope.importScripts = async (...sources) => {
            for (const each of sources) await add(scope.document, each);
          };
          await add(scope.document, source);
          resolve(scope);
        };
      });
      this.terminate = () => frame.remove();
      document.body.append(frame);
    }

    postMessage(data) {
      this.scope.then((scope) => scope.dispatchEvent(new MessageEvent("message", { data })));
    }
  };

  const add = (page, source) =>
    new Promise((resolve, reject) => {
      const script = page.createElement("script");
      script.src = new URL(source, location);
      script.onload = resolve;
      script.onerror = () => reject(new Error(`can't load ${source}`));
      page.body.append(script);
    });
}
