// Browsers start no workers on file:// pages. There, a hidden frame runs the script that searches.
const prologue = `
  const outer = parent
  postMessage = message => outer.postMessage(message, "*")
  importScripts = (...urls) => urls.reduce((before, src) => before.then(() => new Promise((onload, onerror) => {
    document.body.append(Object.assign(document.createElement("script"), { src, onload, onerror }))
  })), Promise.resolve())`

class FrameWorker extends EventTarget {
  constructor(url) {
    super()
    const frame = Object.assign(document.createElement("iframe"), { hidden: true })
    document.body.append(frame)
    this.inner = frame.contentWindow
    this.ready = new Promise(done => { frame.onload = done })
    addEventListener("message", event => {
      if (event.source === this.inner) this.dispatchEvent(new MessageEvent("message", { data: event.data }))
    })
    this.inner.document.write(`<body><script>${prologue}</script><script src="${url}"></script></body>`)
    this.inner.document.close()
  }
  postMessage(data) {
    this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })))
  }
  terminate() {
    this.inner.frameElement.remove()
  }
}

if (location.protocol === "file:") window.Worker = FrameWorker
