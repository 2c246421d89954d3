const [host, port, authority, text, attachment, ...to] = process.argv.slice(2)
const fs = require('fs')
require('nodemailer').createTransport({
  host, port, secure: false, requireTLS: true, name: 'client.example.com',
  auth: {user: 'alice@example.com', pass: process.env.SMTP_PASSWORD},
  authMethod: 'LOGIN', tls: {ca: fs.readFileSync(authority)}
}).sendMail({
  from: 'alice@example.com', to, subject: 'Grüße aus dem Labor',
  text: fs.readFileSync(text, 'utf-8'),
  attachments: attachment ? [{path: attachment}] : []
})
