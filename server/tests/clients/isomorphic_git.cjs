// What the tests have isomorphic-git do: isomorphic_git.cjs COMMAND ARGUMENTS, as server/tests/it/clients.rs says.
'use strict'

const fs = require('node:fs')
const git = require('isomorphic-git')
const http = require('isomorphic-git/http/node')

const commands = {
  async clone (url, dir) {
    await git.clone({ fs, http, dir, url })
  },

  async shallow (url, dir, depth) {
    await git.clone({ fs, http, dir, url, depth: Number(depth), singleBranch: false })
  },

  async fetch (dir) {
    await git.fetch({ fs, http, dir, remote: 'origin', tags: true })
  },

  async deepen (dir, depth) {
    await git.fetch({ fs, http, dir, remote: 'origin', depth: Number(depth) })
  },

  async unshallow (dir) {
    await git.fetch({ fs, http, dir, remote: 'origin', depth: 2 ** 31 - 1 })
  },

  // One reference a request: it has no push of several.
  async push (dir, ...refspecs) {
    for (const refspec of refspecs) {
      const force = refspec.startsWith('+')
      const [ref, remoteRef] = refspec.replace('+', '').split(':')
      // To delete, it wants some reference that is there.
      const target = ref === '' ? { ref: 'HEAD', remoteRef, delete: true } : { ref, remoteRef }
      try {
        const result = await git.push({ fs, http, dir, remote: 'origin', force, ...target })
        if (!result.ok) throw new Error(JSON.stringify(result))
      } catch (error) {
        console.error(`refused: ${error.code} ${error.message}`)
        process.exit(1)
      }
    }
  }
}

const [command, ...parameters] = process.argv.slice(2)
commands[command](...parameters)
